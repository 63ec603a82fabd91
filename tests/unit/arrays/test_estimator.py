import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from polytask import UserError
from polytask.arrays._label_codes import LabelCodes
from polytask.estimator import MultiTaskEstimator
from polytask.weighting import UW

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = {
    "side": np.where(X[:, 0] > 0, "right", "left"),
    "sum": 1000 + 50 * X.sum(axis=1),
    "third": np.digitize(X[:, 1], [-0.5, 0.5]),
}


def small(**options):
    return MultiTaskEstimator(**{"hidden_dims": [16], "lr": 0.02, "epochs": 8, "random_state": 0, **options})


@pytest.fixture(scope="module")
def fitted():
    return small(epochs=30).fit(X, Y)


def equal(first, second):
    assert tasks_of(first) == tasks_of(second)
    for task in tasks_of(first):
        np.testing.assert_array_equal(first[task], second[task], err_msg=task)


def tasks_of(predictions):
    names = getattr(getattr(predictions, "dtype", None), "names", None)
    return list(predictions if names is None else names)


def test_it_learns_all_three(fitted):
    predicted = fitted.predict(X)
    assert (predicted["side"] == Y["side"]).mean() > 0.9
    assert (predicted["third"] == Y["third"]).mean() > 0.8
    assert np.abs(predicted["sum"] - Y["sum"]).mean() < 0.3 * Y["sum"].std()
    assert fitted.score(X, Y) > 0.85
    assert [predicted[task].shape for task in Y] == [(120,)] * 3


def test_what_is_known_after_a_fit(fitted):
    assert fitted.tasks_ == tuple(Y)
    assert fitted.classes_["side"].tolist() == ["left", "right"]
    assert fitted.classes_["sum"] is None
    assert fitted.n_features_in_ == 3
    assert len(fitted.history_["val/loss/sum/epoch"]) == fitted.n_iter_ <= 30
    assert fitted.weights_ == {"side": 1.0, "sum": 1.0, "third": 1.0}


def test_probabilities_are_of_the_classes(fitted):
    probabilities = fitted.predict_proba(X)
    assert list(probabilities) == ["side", "third"]
    np.testing.assert_allclose(probabilities["third"].sum(axis=1), 1, rtol=1e-5)
    chosen = fitted.classes_["third"][probabilities["third"].argmax(axis=1)]
    np.testing.assert_array_equal(chosen, fitted.predict(X)["third"])


def test_a_score_is_the_mean_over_the_tasks_given(fitted):
    predicted = fitted.predict(X)
    right = (predicted["side"] == Y["side"]).mean()
    residual = ((Y["sum"] - predicted["sum"]) ** 2).sum() / ((Y["sum"] - Y["sum"].mean()) ** 2).sum()
    assert fitted.score(X, {"side": Y["side"]}) == pytest.approx(right)
    assert fitted.score(X, {"side": Y["side"], "sum": Y["sum"]}) == pytest.approx((right + 1 - residual) / 2)


def test_a_seed_makes_it_the_same_again_and_leaves_the_callers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = small(epochs=2).fit(X, Y), small(epochs=2).fit(X, Y)
    assert torch.equal(torch.rand(3), expected)
    equal(first.predict(X), second.predict(X))
    other = small(epochs=2, random_state=1).fit(X, Y)
    assert not np.array_equal(other.predict(X)["sum"], first.predict(X)["sum"])


def test_clone_takes_the_parameters_and_nothing_else(fitted):
    weighting = UW()
    estimator = small(weighting=weighting, epochs=1).fit(X, Y)
    again = clone(estimator)
    assert isinstance(again.weighting, UW)
    assert not list(weighting.parameters())
    assert again.get_params()["hidden_dims"] == [16]
    with pytest.raises(NotFittedError):
        again.predict(X)


def test_set_params_takes_known_names_only():
    assert small().set_params(lr=0.5).lr == 0.5
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        small().set_params(rate=0.5)


def test_pickle_predicts_the_same(fitted):
    equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))


# ---- early stopping ---------------------------------------------------------------------------


def test_it_stops_early_and_keeps_the_best_epoch():
    noise = {"noise": RNG.normal(size=len(X))}
    estimator = small(hidden_dims=[64], lr=0.05, epochs=60, patience=3).fit(X, noise)
    losses = estimator.history_["val/loss/noise/epoch"]
    assert estimator.n_iter_ < 60
    assert estimator.n_iter_ == int(np.argmin(losses)) + 1 + 3
    again = small(hidden_dims=[64], lr=0.05, epochs=int(np.argmin(losses)) + 1).fit(X, noise)
    np.testing.assert_allclose(again.predict(X)["noise"], estimator.predict(X)["noise"], rtol=1e-5)


def test_without_a_fraction_it_trains_on_all_rows_for_all_epochs():
    estimator = small(validation_fraction=None, epochs=3).fit(X, Y)
    assert estimator.n_iter_ == 3
    assert not [key for key in estimator.history_ if key.startswith("val/")]


@pytest.mark.filterwarnings("ignore:val/loss/.*/epoch is NaN")
def test_held_back_rows_may_lack_a_tasks_labels():
    rare = np.full(len(X), np.nan)
    rare[:60] = X[:60, 0]
    for seed in range(4):
        small(epochs=1, validation_fraction=0.01, random_state=seed).fit(X, {"rare": rare, "side": Y["side"]})


# ---- frames -----------------------------------------------------------------------------------


def pandas(targets):
    return pd.DataFrame(targets)


def polars(targets):
    return pl.DataFrame(targets)


def records(targets):
    return np.rec.fromarrays(list(targets.values()), names=list(targets))


@pytest.mark.parametrize("frame", [pandas, polars, records])
def test_frames_are_what_a_dict_is(fitted, frame):
    inputs = X if frame is records else frame({name: X[:, i] for i, name in enumerate("abc")})
    estimator = small(epochs=30).fit(inputs, frame(Y))
    predicted = estimator.predict(inputs)
    equal(predicted if frame is not polars else predicted.to_dict(as_series=False), fitted.predict(X))
    assert isinstance(predicted, np.ndarray if frame is records else type(frame(Y)))
    assert estimator.score(inputs, frame(Y)) == fitted.score(X, Y)
    if frame is not records:
        assert estimator.feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("dtype", ["Int64", "float64", "string", "category", "boolean"])
def test_missing_labels_of_pandas(dtype):
    column = pd.Series(Y["third"] if dtype != "boolean" else Y["third"] > 0).astype(dtype)
    column[:30] = None
    estimator = small(epochs=2).fit(X, pd.DataFrame({"third": column}))
    assert len(estimator.classes_["third"]) == (2 if dtype == "boolean" else 3)
    assert 0 <= estimator.score(X, pd.DataFrame({"third": column})) <= 1


@pytest.mark.parametrize("kind", [pl.Int32, pl.String, pl.Boolean, pl.Float64])
def test_missing_labels_of_polars(kind):
    column = pl.Series("third", Y["third"] if kind != pl.Boolean else Y["third"] > 0).cast(kind)
    known = pl.int_range(len(X), eager=True) >= 30
    frame = pl.DataFrame({"third": column}).select(pl.when(known).then(pl.col("third")).alias("third"))
    assert frame["third"].null_count() == 30
    estimator = small(epochs=2).fit(X, frame)
    assert len(estimator.classes_["third"]) == (2 if kind == pl.Boolean else 3)


@pytest.mark.parametrize("frame", [pandas, polars, records])
def test_a_search_in_a_pipeline(frame):
    pipeline = make_pipeline(StandardScaler(), small(epochs=2))
    grid = {"multitaskestimator__weighting": [None, UW()], "multitaskestimator__lr": [1e-9, 0.05]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, frame(Y))
    assert search.best_params_["multitaskestimator__lr"] == 0.05
    predicted = search.predict(X)
    assert set(predicted.columns if frame is polars else tasks_of(predicted)) == set(Y)
    scores = cross_val_score(pipeline, X, frame(Y), cv=3)
    assert len(scores) == 3


def test_a_search_over_numbers_of_numpy():
    grid = {"batch_size": np.array([16, 32]), "epochs": np.arange(1, 2), "patience": np.array([2])}
    search = GridSearchCV(small(), grid, cv=2, error_score="raise").fit(X, pd.DataFrame(Y))
    assert search.best_params_["batch_size"] in (16, 32)


@pytest.mark.parametrize(
    ("options", "where"),
    [({"hidden_dims": 8}, "hidden_dims"), ({"validation_fraction": "0.1"}, "validation_fraction")],
)
def test_parameters_of_another_type(options, where):
    with pytest.raises(UserError, match=f"^{where}: "):
        small(**options).fit(X, Y)


# ---- kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([0, 1, 2], "classification"),
        ([-1, 1], "classification"),
        ([3, 70], "classification"),
        ([0.0, 1.0, np.nan], "classification"),
        ([0, 1, -100], "classification"),
        (["a", None, "b"], "classification"),
        ([[0], [1]], "classification"),
        ([0.5, 1.0], "regression"),
        (np.arange(30.0), "regression"),
        ([[0.0, 1.0], [2.0, 3.0]], "regression"),
    ],
)
def test_what_a_target_is(column, kind):
    assert LabelCodes("task", column).kind == kind


def test_integers_of_many_values_have_to_be_named():
    with pytest.raises(
        UserError, match=r"task 'count': task_types is required for integers .* Pass task_types={'count'"
    ):
        small().fit(X, {"count": np.arange(len(X))})
    assert small(epochs=1, task_types={"count": "regression"}).fit(X, {"count": np.arange(len(X))})
    codes = LabelCodes("count", np.arange(100), "classification")
    assert codes.size == 100


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "float32"])
def test_classes_come_back_as_they_were(dtype):
    labels = (np.arange(120) % 3 * 7).astype(dtype)
    predicted = small(epochs=1, validation_fraction=None).fit(X, {"label": labels}).predict(X)["label"]
    assert set(predicted.tolist()) <= {0, 7, 14}
    assert predicted.dtype.kind in "iu"


def test_values_of_several_numbers():
    pair = np.stack([X.sum(axis=1), X[:, 0] * 10], axis=1)
    pair[:5, 1] = np.nan
    estimator = small(epochs=30).fit(X, {"pair": pair})
    assert estimator.predict(X)["pair"].shape == (120, 2)
    assert estimator.score(X, {"pair": pair}) > 0.7


def test_a_constant_is_predicted_and_scored():
    estimator = small(epochs=20).fit(X, {"constant": np.full(120, 2.5)})
    np.testing.assert_allclose(estimator.predict(X)["constant"], 2.5, atol=0.5)
    assert estimator.score(X, {"constant": np.full(120, 2.5)}) in (0.0, 1.0)


def test_an_own_model():
    def convolutional(features, outputs):
        assert (features, outputs) == (1, {"third": 3})
        return nn.Sequential(nn.Conv2d(features, 4, 3), nn.Flatten(), nn.Linear(144, outputs["third"]))

    images = RNG.normal(size=(120, 1, 8, 8))
    estimator = small(model=convolutional, epochs=1).fit(images, {"third": Y["third"]})
    assert estimator.predict_proba(images)["third"].shape == (120, 3)


# ---- what cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (np.zeros((120, 2, 2)), r"y: must be a dict .* or an array, got a ndarray of shape \(120, 2, 2\)"),
        (5, "y: must be a dict by task, a data frame with a column for each task, or an array, got a int"),
        ({"bits": (X > 0).astype(int)}, "task 'bits': must have one label per row; .* a matrix of 0 and 1"),
        ({"bits": X > 0}, "task 'bits': must have one label per row; .* a matrix of 0 and 1"),
        ({}, "y: needs at least one task"),
        ({"loss": Y["sum"]}, "'loss' is reserved for log keys"),
        ({"sum": Y["sum"][:5]}, r"task 'sum': must have a target for each of the 120 rows of X, got 5"),
        ({"sum": np.full(120, np.nan)}, "task 'sum': must have a label, got none"),
        ({"sum": np.where(X[:, 0] > 0, np.inf, 0.5)}, "task 'sum': targets must be finite"),
        ({"one": np.zeros(120, dtype=int)}, "task 'one': must have at least two classes"),
        ({"mixed": np.array(["a", 1] * 60, dtype=object)}, "task 'mixed': labels must be of one type"),
        ({"mixed": ["a", 1] * 60}, "task 'mixed': labels must be of one type"),
        (
            {"when": np.array(["2020-01-01"] * 120, dtype="datetime64[D]")},
            "task 'when': targets must be numbers",
        ),
        ({"cube": np.zeros((120, 2, 2))}, "task 'cube': regression must have a number or a vector"),
    ],
)
def test_targets_that_cannot_be_used(targets, message):
    with pytest.raises(UserError, match=message):
        small().fit(X, targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction: must be between 0 and 1"),
        ({"patience": 0}, "patience: must be an integer of at least 1"),
        ({"weighting": "UW"}, "weighting: must be a polytask.weighting.Weighting, got str"),
        ({"model": nn.Linear(3, 1)}, "model: must be a callable"),
        ({"model": lambda features, outputs: None}, "model: must return a torch.nn.Module"),
        ({"hidden_dims": []}, "hidden_dims: must have at least one layer"),
        ({"task_types": {"sume": "regression"}}, "task_types: no task is called 'sume'"),
        ({"task_types": {"sum": "regresion"}}, "Did you mean 'regression'"),
        ({"task_types": {"side": "regression"}}, "task 'side': targets of a regression must be numbers"),
        ({"task_types": {"sum": "classification"}}, "task 'sum': class labels must be whole numbers"),
        ({"loss_weights": {"sides": 2.0}}, "loss_weights: no task is called 'sides'"),
        ({"epochs": 0}, "epochs: must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": True}, "lr: must be a finite number above 0, got True"),
        ({"lr": "x"}, "lr: must be a finite number above 0, got 'x'"),
        ({"weight_decay": True}, "weight_decay: must be a finite number of at least 0, got True"),
        ({"weight_decay": -1.0}, "weight_decay: must be a finite number of at least 0, got -1.0"),
        *(
            ({"random_state": value}, f"random_state: must be None, an integer .* got {value!r}")
            for value in (True, np.True_, -1, 2**32, 0.5, "x")
        ),
    ],
)
def test_a_parameter_that_cannot_be_used(options, message):
    with pytest.raises(UserError, match=message):
        small(**options).fit(X, Y)


def test_a_score_needs_known_tasks_and_labels(fitted):
    with pytest.raises(UserError, match="y: no task is called 'sides'"):
        fitted.score(X, {"sides": Y["side"]})
    with pytest.raises(UserError, match="task 'sum': must have a label to be scored"):
        fitted.score(X, {"sum": np.full(120, np.nan)})


def test_values_have_no_probabilities():
    with pytest.raises(UserError, match="predict_proba: requires a classification"):
        small(epochs=1).fit(X, {"sum": Y["sum"]}).predict_proba(X)


# ---- arrays, and scikit-learn's own checks -----------------------------------------------------

TWO = np.column_stack([Y["sum"], 3 * X[:, 1] + 0.5])


def test_a_matrix_is_a_task_for_each_column():
    named = small().fit(X, {"y0": TWO[:, 0], "y1": TWO[:, 1]})
    estimator = small().fit(X, TWO)
    assert estimator.tasks_ == ("y0", "y1")
    np.testing.assert_array_equal(estimator.predict(X), np.column_stack(list(named.predict(X).values())))
    assert estimator.score(X, TWO) == named.score(X, {"y0": TWO[:, 0], "y1": TWO[:, 1]})
    with pytest.raises(UserError, match=r"y: must have a column for each of y0, y1, got shape \(120, 3\)"):
        estimator.score(X, np.zeros((120, 3)))


def test_a_vector_is_one_task():
    named = small().fit(X, {"y": Y["side"]})
    estimator = small().fit(X, list(Y["side"]))
    np.testing.assert_array_equal(estimator.predict(X), named.predict(X)["y"])
    np.testing.assert_array_equal(estimator.predict_proba(X), named.predict_proba(X)["y"])
    assert estimator.classes_.tolist() == ["left", "right"]


@pytest.mark.parametrize("kind", [int, bool, float])
def test_a_matrix_of_labels_is_a_classification_for_each(kind):
    bits = (X > 0).astype(kind)
    estimator = small(epochs=30).fit(X, bits)
    assert [classes.tolist() for classes in estimator.classes_] == [[0, 1]] * 3
    assert (estimator.predict(X) == bits).mean() > 0.9
    shares = estimator.predict_proba(X)
    assert [share.shape for share in shares] == [(120, 2)] * 3
    right = [accuracy_score(bits[:, task], estimator.predict(X)[:, task]) for task in range(3)]
    assert estimator.score(X, bits) == pytest.approx(np.mean(right))


def test_a_matrix_may_have_columns_of_two_kinds():
    mixed = np.column_stack([Y["side"].astype(object), Y["sum"].astype(object)])
    predicted = small(epochs=30).fit(X, mixed).predict(X)
    assert predicted.dtype == object
    assert set(predicted[:, 0]) == {"left", "right"}
    assert np.corrcoef(predicted[:, 1].astype(float), Y["sum"])[0, 1] > 0.9


@pytest.mark.parametrize("form", [pd.DataFrame, np.asarray], ids=["frame", "matrix"])
def test_cross_validation_predicts_and_scores(form):
    """As scikit-learn does with the estimator's own predictions of each fold."""
    targets = form(TWO) if form is np.asarray else form(TWO, columns=["a", "b"])
    folds = KFold(3)
    estimator = small(epochs=20)
    predicted = cross_val_predict(estimator, X, targets, cv=folds)
    expected, scores = np.zeros_like(TWO), []
    for train, test in folds.split(X):
        rows = targets[train] if form is np.asarray else targets.iloc[train]
        expected[test] = np.asarray(clone(estimator).fit(X[train], rows).predict(X[test]))
        scores.append(r2_score(TWO[test], expected[test]))
    np.testing.assert_allclose(predicted, expected)
    np.testing.assert_allclose(cross_val_score(estimator, X, targets, cv=folds, scoring="r2"), scores)
    both = {"r2": "r2", "error": "neg_mean_absolute_error"}
    found = cross_validate(estimator, X, targets, cv=folds, scoring=both, error_score="raise")
    np.testing.assert_allclose(found["test_r2"], scores)
    assert np.isfinite(found["test_error"]).all()
    search = GridSearchCV(small(epochs=2), {"lr": [1e-9, 0.05]}, scoring=both, refit="r2", cv=2)
    assert search.fit(X, targets).best_params_ == {"lr": 0.05}


def test_probabilities_of_folds():
    shares = cross_val_predict(small(epochs=20), X, Y["side"], cv=3, method="predict_proba")
    assert shares.shape == (120, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert ((shares[:, 1] > 0.5) == (Y["side"] == "right")).mean() > 0.8


@parametrize_with_checks([MultiTaskEstimator([4], epochs=1, random_state=0)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
