"""MultiTaskEstimator: scikit-learn's contract for several targets at once. Needs scikit-learn."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from polytask._checks import check_integer, check_number, is_finite, is_integer
from polytask._errors import UserError
from polytask._tasks import TaskType, check_known
from polytask.arrays._keep_best import KeepBest
from polytask.arrays._label_codes import LabelCodes, check_kinds
from polytask.arrays._predict_rows import predict_rows
from polytask.arrays._session import Session
from polytask.arrays._target_form import TargetForm
from polytask.batch import Batch
from polytask.data import create_multitask_dataloader
from polytask.data._missing_values import numbers_of
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, create_hard_sharing_model
from polytask.system._forward import outputs_by_task
from polytask.weighting import Weighting

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "polytask.estimator needs scikit-learn: pip install 'polytask[sklearn]'", name=error.name
    ) from error

Arrays = dict[str, NDArray[Any]]
_LOSSES: dict[TaskType, type[nn.Module]] = {"classification": nn.CrossEntropyLoss, "regression": nn.MSELoss}
_PREDICT_ROWS = 4096


class MultiTaskEstimator(BaseEstimator):  # type: ignore[misc]
    """One network for several targets, with scikit-learn's ``fit``, ``predict`` and ``score``.

    Targets are a dict by task, a data frame (pandas, polars) or a structured array with a column for each
    task, an array ``(rows, k)``, whose columns are the tasks ``y0``, ``y1`` and so on, or an array
    ``(rows,)``, which is the task ``y``. Predictions have the form of the targets. All but the dict can be
    cut into folds by scikit-learn itself, as `GridSearchCV` does. A label is missing if it is NaN, None or
    null, or -100 among integers. Strings, booleans and integers with up to 20 different values are classes,
    and the task is a classification; fractions are values, and the task is a regression; any other kind has
    to be given in ``task_types``. Several labels for each row are several tasks: in a dict, a matrix of 0
    and 1 is an error.

    Values are standardised for the training, and predicted in their original unit. Inputs are not scaled:
    put a scaler before the estimator in a `Pipeline`.

    Args:
        hidden_dims: Units of the shared layers; the last layer is the input of the heads.
        task_types: ``classification`` or ``regression`` by task; inferred from the targets if not given.
        weighting: A weighting of `polytask.weighting`; a copy is trained. Equal weights if None.
        loss_weights: Factors of the tasks' losses, no unit; 1 if not given.
        model: Called with the number of features and a dict of outputs by task; returns the module to train,
            whose outputs are ``(rows, outputs)`` by task. If None, a backbone of ``hidden_dims`` with a
            linear head for each task.
        lr: Learning rate of AdamW.
        weight_decay: Of AdamW, for the model's parameters.
        batch_size: Rows of a training step.
        epochs: The maximal number of epochs.
        validation_fraction: Fraction of the rows that is held out for early stopping, between 0 and 1; None
            trains on all rows for all epochs.
        patience: Epochs without a smaller sum of the held-out rows' losses after which training stops. The
            weights of the best epoch are kept.
        grad_clip: Largest norm of the gradient; None clips nothing.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``. The trained model is kept on the host.
        random_state: Seed of the initial weights, the held-out rows and the order of the data.

    Attributes:
        tasks_: The tasks, in order.
        classes_: The classes of each task in the order of `predict_proba`, None for a regression: by task, in
            a list if the targets were a matrix, of the one task if they were a vector.
        model_: The trained module.
        history_: By log key a list with a value for each epoch.
        n_iter_: Epochs that were trained.
        weights_: The weight of each task at the last step.
        n_features_in_: The number of features of the inputs.
        feature_names_in_: Their names, if the inputs are a data frame with named columns.

    Raises:
        UserError: In `fit`, if a parameter or the data cannot be used.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 4))
        >>> y = {"side": np.where(X[:, 0] > 0, "right", "left"), "sum": X.sum(axis=1)}
        >>> estimator = MultiTaskEstimator([16], lr=0.02, epochs=20, random_state=0).fit(X, y)
        >>> estimator.score(X, y) > 0.8, estimator.classes_["side"].tolist()
        (True, ['left', 'right'])
        >>> estimator.predict(X[:2])["side"].shape, estimator.predict_proba(X[:2])["side"].shape
        ((2,), (2, 2))
    """

    def __init__(
        self,
        hidden_dims: Sequence[int] = (128, 64),
        *,
        task_types: Mapping[str, TaskType] | None = None,
        weighting: Weighting | None = None,
        loss_weights: Mapping[str, float] | None = None,
        model: Callable[[int, Mapping[str, int]], nn.Module] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        epochs: int = 100,
        validation_fraction: float | None = 0.1,
        patience: int = 10,
        grad_clip: float | None = None,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_dims = hidden_dims
        self.task_types = task_types
        self.weighting = weighting
        self.loss_weights = loss_weights
        self.model = model
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.grad_clip = grad_clip
        self.device = device
        self.random_state = random_state

    # ---- fit ----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train a new model.

        Args:
            X: Inputs, ``(rows, features)``; ``(rows, ...)`` with a ``model`` that takes them.
            y: Targets by task, see the class.

        Returns:
            The estimator itself.

        Raises:
            UserError: If a parameter or the data cannot be used.
        """
        self._check_parameters()
        X = self._inputs(X, reset=True)  # noqa: N806
        form = TargetForm(y)
        columns = form.columns(y, len(X))
        kinds = check_kinds(self.task_types, columns)
        codes = {name: LabelCodes(name, column, kinds.get(name)) for name, column in columns.items()}
        targets = {name: codes[name].encode(column) for name, column in columns.items()}
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        train, held_out = self._split(len(X), random)
        with torch.random.fork_rng(_cuda(self.device)):
            torch.manual_seed(seed)
            session = self._session(X.shape[1] if X.ndim > 1 else 1, codes)
            best = KeepBest(self.patience)
            training, validation = (self._loader(X, targets, rows, seed) for rows in (train, held_out))
            session.train_for(self.epochs, training, validation, [best])
        best.load_best(session.system)
        self._form = form
        self._keep(session, codes)
        return self

    def _check_parameters(self) -> None:
        fraction = self.validation_fraction
        if fraction is not None and not (is_finite(fraction) and 0 < fraction < 1):
            raise UserError("validation_fraction", "must be between 0 and 1, or None", repr(fraction))
        check_integer(self.patience, "patience", 1)
        check_number(self.lr, "lr", above=0)
        check_number(self.weight_decay, "weight_decay", least=0)
        random = self.random_state
        known = random is None or isinstance(random, np.random.RandomState)
        if not known and not is_integer(random, 0, 2**32 - 1):
            rule = f"must be None, an integer from 0 to {2**32 - 1} or a numpy.random.RandomState"
            raise UserError("random_state", rule, repr(random))
        if self.weighting is not None and not isinstance(self.weighting, Weighting):
            raise UserError(
                "weighting", "must be a polytask.weighting.Weighting", type(self.weighting).__name__
            )
        if self.model is not None and (isinstance(self.model, nn.Module) or not callable(self.model)):
            rule = "must be a callable from the features and outputs by task to a module"
            raise UserError("model", rule, type(self.model).__name__, "Pass a function that makes the module")
        if not np.iterable(self.hidden_dims) or (self.model is None and not len(self.hidden_dims)):
            raise UserError("hidden_dims", "must have at least one layer", repr(self.hidden_dims))

    def _split(self, rows: int, random: np.random.RandomState) -> tuple[Any, Any]:
        """The rows to train on, and those held out."""
        if self.validation_fraction is None:
            return np.arange(rows), None
        number = max(1, round(rows * self.validation_fraction))
        if number >= rows:
            found = f"{number} of {rows} rows"
            raise UserError("validation_fraction", "must leave rows to train on", found, "Pass None")
        order = random.permutation(rows)
        return np.sort(order[number:]), np.sort(order[:number])

    def _loader(self, inputs: Any, targets: Mapping[str, Any], rows: Any, seed: int) -> Any:
        if rows is None:
            return None
        own = {name: target[rows] for name, target in targets.items()}
        # The held-out rows may lack labels of a task; the training rows may not.
        own = {name: target for name, target in own.items() if _is_labelled(target)}
        coded = [name for name, target in own.items() if target.dtype == np.int64]
        classes = {name: int(targets[name].max()) + 1 for name in coded}
        return create_multitask_dataloader(inputs[rows], own, self.batch_size, classes=classes, seed=seed)

    def _session(self, features: int, codes: Mapping[str, LabelCodes]) -> Session:
        sizes = {name: code.size for name, code in codes.items()}
        model = (self.model or self._default)(features, sizes)
        if not isinstance(model, nn.Module):
            raise UserError("model", "must return a torch.nn.Module", type(model).__name__)
        criterion = MultiTaskLoss(
            {name: _LOSSES[code.kind]() for name, code in codes.items()},
            self.loss_weights,
            weighting=copy.deepcopy(self.weighting),
        )
        groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
        if learned := list(criterion.parameters()):
            groups.append({"params": learned, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        return Session(model, criterion, optimizer, self.device, grad_clip=self.grad_clip)

    def _default(self, features: int, sizes: Mapping[str, int]) -> nn.Module:
        *hidden, last = self.hidden_dims
        backbone = MLP(features, hidden, last, activate_output=True)
        return create_hard_sharing_model(backbone, {name: {"output_dim": n} for name, n in sizes.items()})

    def _keep(self, session: Session, codes: dict[str, LabelCodes]) -> None:
        self.model_ = session.system.model.cpu()
        self.tasks_ = tuple(codes)
        self.classes_ = self._form.listed({name: code.classes for name, code in codes.items()})
        self.history_ = session.history.by_key()
        self.n_iter_ = len(session.history.epochs)
        self.weights_ = {name: self.history_[f"weights/{name}"][-1] for name in codes}
        self._codes = codes

    # ---- predict ------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Classes, or values in the unit of the targets, by task.

        Args:
            X: Inputs as those of `fit`.

        Returns:
            Predictions in the form of the targets of `fit`: a dict of ``(rows,)`` or ``(rows, k)`` by task, a
            data frame or a structured array with a column for each task, or an array.

        Raises:
            UserError: If the inputs do not fit the model.
        """
        labels = self._labels(X)
        return self._form.restored(labels)

    def _labels(self, X: Any) -> Arrays:  # noqa: N803
        return {name: self._codes[name].decode(output) for name, output in self._outputs(X).items()}

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Probabilities of the classes of each classification, in the order of ``classes_``.

        Args:
            X: Inputs as those of `fit`.

        Returns:
            ``(rows, classes)`` by task; for a matrix of targets a list, with None for a regression; for a
            vector one array.

        Raises:
            UserError: If no task is a classification, or the inputs do not fit the model.
        """
        outputs = self._outputs(X)
        chosen = [name for name, code in self._codes.items() if code.classes is not None]
        if not chosen:
            regressions = f"regressions only: {', '.join(self.tasks_)}"
            raise UserError("predict_proba", "requires a classification", regressions)
        found = {name: torch.from_numpy(outputs[name]).softmax(dim=1).numpy() for name in chosen}
        return self._form.listed(found)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """The mean over the tasks of accuracy, or of the coefficient of determination for a regression.

        Args:
            X: Inputs as those of `fit`.
            y: Targets of some or all tasks; rows without a label are left out.

        Raises:
            UserError: If a task is unknown, or has no label.
        """
        predicted = self._labels(X)
        columns = self._form.columns(y, len(next(iter(predicted.values()))))
        check_known(columns, self.tasks_, "y")
        scores = [self._codes[name].score(column, predicted[name]) for name, column in columns.items()]
        return float(np.mean(scores))

    def _outputs(self, X: Any) -> Arrays:  # noqa: N803
        check_is_fitted(self)
        X = self._inputs(X, reset=False)  # noqa: N806

        def forward(inputs: Any) -> Any:
            return outputs_by_task(self.model_, Batch(inputs, None, len(inputs)), self.tasks_)

        try:
            return predict_rows(self.model_.to(self.device), forward, X, _PREDICT_ROWS)
        finally:
            self.model_.cpu()

    def _inputs(self, X: Any, reset: bool) -> NDArray[np.float32]:  # noqa: N803
        checked: NDArray[np.float32] = validate_data(
            self, _with_nan(X), reset=reset, dtype=np.float32, allow_nd=self.model is not None
        )
        return checked

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def _with_nan(rows: Any) -> Any:
    """Rows whose missing values, such as pandas' NA, are NaN, which scikit-learn names in its error."""
    if not isinstance(rows, (list, np.ndarray)) or (isinstance(rows, np.ndarray) and rows.dtype != object):
        return rows
    found = numbers_of(np.array(rows, dtype=object))
    return rows if found is None else found


def _cuda(device: str) -> list[torch.device]:
    return [torch.device(device)] if str(device).startswith("cuda") else []


def _is_labelled(target: NDArray[Any]) -> bool:
    return bool((target >= 0).any() if target.dtype == np.int64 else np.isfinite(target).any())
