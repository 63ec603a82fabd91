"""Missing targets and inputs of the estimator and the trainer, in every container that people have."""

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from torch import nn

from polytask.estimator import MultiTaskEstimator
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer

X = np.random.default_rng(0).normal(size=(40, 3))
PRESENT = np.arange(40) % 4 != 1
VALUES = {
    "integers": [int(x > 0) + 3 for x in X[:, 0]],
    "booleans": [bool(x > 0) for x in X[:, 0]],
    "floats": X[:, 0].tolist(),
    "strings": ["yes" if x > 0 else "no" for x in X[:, 0]],
}
SERIES = {
    "integers": ("Int8", "Int64", "UInt8", "int64[pyarrow]"),
    "booleans": ("boolean", "bool[pyarrow]"),
    "floats": ("Float32", "Float64", "float64", "double[pyarrow]"),
    "strings": ("string", "str", "string[pyarrow]", "category"),
}
OBJECTS = {
    "list": list,
    "object array": lambda values: np.array([*values, None], dtype=object)[:-1],
    "object series": lambda values: pd.Series(values, dtype=object),
}
MISSING = {"None": None, "nan": float("nan"), "NA": pd.NA, "NaT": pd.NaT}


def with_missing(kind, missing):
    return [value if known else missing for value, known in zip(VALUES[kind], PRESENT, strict=True)]


def containers(kind):
    for name, make in OBJECTS.items():
        for missing, value in MISSING.items():
            yield f"{name} with {missing}", make(with_missing(kind, value))
    for dtype in SERIES[kind]:
        yield f"pandas {dtype}", pd.Series(with_missing(kind, None), dtype=dtype)
    yield "polars", polars.Series(with_missing(kind, None))


FAMILY = [
    pytest.param(kind, column, id=f"{kind}: {name}") for kind in VALUES for name, column in containers(kind)
]


@pytest.mark.parametrize(("kind", "column"), FAMILY)
def test_the_estimator_learns_from_the_labelled_rows(kind, column):
    options = {
        "hidden_dims": [4],
        "epochs": 2,
        "validation_fraction": None,
        "batch_size": 40,
        "random_state": 0,
    }
    estimator = MultiTaskEstimator(**options).fit(X, {"t": column})
    whole = np.array(VALUES[kind])
    if kind == "floats":
        known = whole[PRESENT]
        output = estimator.predict(X)["t"]
        expected = 1 - ((known - output[PRESENT]) ** 2).sum() / ((known - known.mean()) ** 2).sum()
    else:
        assert estimator.classes_["t"].tolist() == np.unique(whole).tolist()
        expected = (estimator.predict(X)["t"] == whole)[PRESENT].mean()
    assert estimator.score(X, {"t": column}) == pytest.approx(expected)
    alone = MultiTaskEstimator(**options).fit(X[PRESENT], {"t": whole[PRESENT]})
    first, second = (own.history_["train/loss/t/epoch"][0] for own in (estimator, alone))
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("make", [list, lambda rows: np.array(rows, dtype=object), pd.DataFrame])
def test_the_estimator_takes_rows_with_missing_values(make):
    rows = [[float(a), pd.NA if known else float(b)] for (a, b, _), known in zip(X, PRESENT, strict=True)]
    options = {"hidden_dims": [4], "epochs": 1, "random_state": 0}
    estimator = MultiTaskEstimator(**options).fit(X, {"t": make(rows)})
    expected = np.where(PRESENT, np.nan, X[:, 1])
    same = MultiTaskEstimator(**options).fit(X, {"t": np.stack([X[:, 0], expected], axis=1)})
    assert np.array_equal(estimator.predict(X)["t"], same.predict(X)["t"])


@pytest.mark.parametrize("value", MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("make", [list, lambda rows: np.array(rows, dtype=object)])
def test_the_estimator_names_missing_inputs(make, value):
    with pytest.raises(ValueError, match="Input X contains NaN"):
        MultiTaskEstimator(epochs=1).fit(make([[1.0, value], [2.0, 3.0]]), {"t": [0.5, 1.5]})


@pytest.mark.parametrize(
    ("kind", "column"),
    [own for own in FAMILY if own.values[0] in ("booleans", "floats") and "list with nan" not in own.id],
)
def test_the_trainer_leaves_missing_targets_out(kind, column):
    torch.manual_seed(0)
    size = 1 if kind == "floats" else 2
    model = create_hard_sharing_model(MLP(3, [4], 4), {"t": {"output_dim": size}})
    loss = nn.MSELoss() if kind == "floats" else nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = MultiTaskTrainer(model, MultiTaskLoss({"t": loss}), optimizer)
    found = trainer.validate([(X, {"t": column})])["val/loss/t/epoch"]
    with torch.no_grad():
        outputs = model(torch.tensor(X, dtype=torch.float32))["t"].double().numpy()[PRESENT]
    known = np.array(VALUES[kind])[PRESENT]
    if kind == "floats":
        expected = np.mean((outputs[:, 0] - known) ** 2)
    else:
        chosen = outputs[np.arange(len(known)), known.astype(int)]
        expected = np.mean(np.log(np.exp(outputs).sum(axis=1)) - chosen)
    assert found == pytest.approx(expected, rel=1e-5)
