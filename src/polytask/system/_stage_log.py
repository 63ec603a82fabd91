"""Losses and metrics of the stages, kept on the device until they are logged."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from polytask._tasks import check_known
from polytask.batch import Batch
from polytask.losses import MultiTaskLoss, Targets
from polytask.losses._totals import objective, with_total
from polytask.metrics import StageMetrics
from polytask.metrics._loss_meter import LossMeter
from polytask.system._stages import STAGES

MEASURED = STAGES[:3]
Loaders = Mapping[str, Sequence[str]]


class StageLog(nn.Module):
    """Losses and metrics of the stages ``train``, ``val`` and ``test``.

    Args:
        names: All tasks, in order.
        metrics: Metrics by task, by stage.
        adapters: The adapters of every stage.
        auxiliary: Losses that belong to no task.
        objective: Whether the scalar that is minimised is logged separately from the total.

    Attributes:
        former: Whether a run goes on as it began before totals were comparable: the total that is logged is
            the scalar that is minimised.
        epochs: The training epoch, from 0, in which each stage was last measured.
        notes: By stage a sentence for each of the last epoch's values that is undefined.
        unlabelled: By stage the tasks without a label in its last epoch.

    Raises:
        UserError: If metrics are given for an unknown task.

    Example:
        >>> from polytask.system._stages import adapters_by_stage
        >>> StageLog(["digit"], {}, adapters_by_stage(None)).log_keys(["val"])
        ['val/loss/digit/epoch', 'val/loss/total/epoch']
    """

    def __init__(
        self,
        names: Sequence[str],
        metrics: Mapping[str, Any],
        adapters: Mapping[str, Mapping[str, Any]],
        auxiliary: Sequence[str] = (),
        objective: bool = False,
    ) -> None:
        super().__init__()
        for stage in MEASURED:
            check_known(metrics.get(stage) or {}, names, f"metrics ({stage})")
        self.metrics = nn.ModuleDict(
            {
                f"stage_{stage}": StageMetrics(metrics.get(stage) or {}, adapters[stage]["metrics"])
                for stage in MEASURED
            }
        )
        self.meters = {stage: LossMeter([*names, *auxiliary]) for stage in MEASURED}
        self.objective, self.former = objective, False
        self.epochs: dict[str, int] = {}
        self.notes: dict[str, list[str]] = {stage: [] for stage in MEASURED}
        self.unlabelled: dict[str, list[str]] = {stage: [] for stage in MEASURED}
        # Not registered as modules: a checkpoint does not depend on the number of loaders.
        self.parts: dict[str, dict[str, tuple[LossMeter, StageMetrics]]] = {}

    def of(self, stage: str) -> StageMetrics:
        """The metrics of a stage."""
        metrics = self.metrics[f"stage_{stage}"]
        assert isinstance(metrics, StageMetrics)
        return metrics

    def divide(self, stage: str, names: Sequence[str]) -> None:
        """Keep the values of a stage's loaders apart too, until the next call.

        Args:
            stage: ``val`` or ``test``.
            names: The loaders' names, in order; none if there is one loader.
        """
        self.parts[stage] = {}
        for name in names:
            metrics = copy.deepcopy(self.of(stage))
            metrics.reset()
            self.parts[stage][name] = LossMeter(self.meters[stage].names[:-1]), metrics

    def log_keys(self, stages: Iterable[str], loaders: Loaders | None = None) -> list[str]:
        """The keys that these stages log at the end of an epoch, as far as they can be known before it.

        Args:
            stages: Stages that have data.
            loaders: By stage the names of its loaders, if it has several.
        """
        keys = []
        for stage in stages:
            if stage in MEASURED:
                own = [f"loss/{name}/epoch" for name in self.meters[stage].names]
                own += ["objective/epoch"] if self.objective and not self.former else []
                own += [f"{key}/epoch" for key in self.of(stage).entries()]
                for prefix in (stage, *(f"{stage}/{name}" for name in (loaders or {}).get(stage, ()))):
                    keys += [f"{prefix}/{key}" for key in own]
        return keys

    def may_log(
        self, key: str, stages: Iterable[str], any_loss: bool = False, loaders: Loaders | None = None
    ) -> bool:
        """Whether these stages may log a key at the end of an epoch.

        Args:
            key: A log key.
            stages: Stages that have data.
            any_loss: Whether the criterion may return losses under any name.
            loaders: By stage the names of its loaders, if it has several.

        Example:
            >>> from polytask.system._stages import adapters_by_stage
            >>> log = StageLog(["digit"], {}, adapters_by_stage(None))
            >>> [log.may_log(f"val/loss/{name}/epoch", ["val"]) for name in ("digit", "dice")]
            [True, False]
            >>> log.may_log("val/loss/dice/epoch", ["val"], any_loss=True)
            True
        """
        stage, _, rest = key.partition("/")
        for loader in (loaders or {}).get(stage, ()):
            if rest.startswith(f"{loader}/"):
                rest = rest.removeprefix(f"{loader}/")
                break
        name = rest.removesuffix("/epoch")
        if stage not in MEASURED or stage not in tuple(stages) or name == rest:
            return False
        if name.startswith("loss/"):
            loss = name.removeprefix("loss/")
            return loss in self.meters[stage].names or (any_loss and loss != "")
        if name == "objective":
            return self.objective and not self.former
        return (stage, name) == ("train", "skipped") or self.of(stage).may_log(name)

    def check_arguments(self, stages: Iterable[str]) -> None:
        """Check that metrics can be called with what their adapters pass.

        Args:
            stages: Stages that have data.

        Raises:
            UserError: If one lacks an argument, or an argument is of no metric.
        """
        for stage in stages:
            if stage in MEASURED:
                self.of(stage).check_arguments()

    def add(
        self,
        stage: str,
        batch: Batch,
        outputs: Any,
        total: Tensor,
        losses: Mapping[str, Tensor],
        criterion: nn.Module,
        step: int,
        loader: int = 0,
    ) -> None:
        """Keep one step's losses and rows; nothing is read on the host.

        Args:
            stage: ``train``, ``val`` or ``test``.
            batch: The batch.
            outputs: The model's outputs by task.
            total: What was minimised.
            losses: Losses of the present tasks.
            criterion: The criterion that computed them.
            step: The step's number, for the message if a loss is not finite.
            loader: The number of the stage's loader that the batch is of.
        """
        kept = [
            (self.meters[stage], self.of(stage)),
            *[*self.parts.get(stage, {}).values()][loader : loader + 1],
        ]
        for meter, metrics in kept:
            meter.add(losses, total, _counts(batch, criterion), batch.size, step)
            _add_rows(metrics, batch, outputs)

    def step_values(self, losses: Mapping[str, float], criterion: nn.Module) -> dict[str, float]:
        """The training's values over the steps since the last reading, by log key.

        Args:
            losses: The mean losses over these steps, and the mean of the totals that were minimised.
            criterion: The criterion that computed the losses.
        """
        values: dict[str, Any] = {**self._loss_values("train", losses, criterion)}
        values |= self.of("train").step_values()
        return {f"train/{key}/step": float(value) for key, value in values.items()}

    def epoch_values(
        self,
        stage: str,
        criterion: nn.Module,
        add_up: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, float]:
        """A stage's values since the last call, by log key.

        In an evaluation a task without any label has NaN.

        Args:
            stage: ``train``, ``val`` or ``test``.
            criterion: The criterion that computed the losses.
            add_up: Adds a tensor up over all processes; None if there is one.
        """
        self.notes[stage], self.unlabelled[stage] = [], []
        values = self._values(stage, stage, self.meters[stage], self.of(stage), criterion, add_up)
        for name, (meter, metrics) in self.parts.get(stage, {}).items():
            values |= self._values(stage, f"{stage}/{name}", meter, metrics, criterion, add_up)
        return values

    def _values(
        self,
        stage: str,
        prefix: str,
        meter: LossMeter,
        metrics: StageMetrics,
        criterion: nn.Module,
        add_up: Callable[[Tensor], Tensor] | None,
    ) -> dict[str, float]:
        losses = meter.epoch(add_up)
        found = self._loss_values(stage, losses, criterion)
        found |= {key: float(value) for key, value in metrics.compute(add_up).items()}
        self.notes[stage] += [f"{prefix}/{key}/epoch is {what}" for key, what in metrics.undefined.items()]
        if stage != "train" and losses:
            # Callbacks that monitor the keys of a task without a label have to find them.
            names = criterion.names if isinstance(criterion, MultiTaskLoss) else ()
            absent = [name for name in names if f"loss/{name}" not in found]
            self.notes[stage] += [
                f"{prefix}/loss/{name}/epoch is NaN, as are the task's metrics: no label" for name in absent
            ]
            if prefix == stage:
                self.unlabelled[stage] = absent
            keys = [f"loss/{name}" for name in absent]
            keys += [entry for entry in metrics.entries() if entry.split("/")[0] in absent]
            found |= dict.fromkeys(keys, math.nan)
        meter.reset()
        metrics.reset()
        return {f"{prefix}/{key}/epoch": value for key, value in found.items()}

    def _loss_values(self, stage: str, losses: Mapping[str, float], criterion: nn.Module) -> dict[str, float]:
        """Losses, their comparable total, and the scalar that is minimised if it is another one.

        In training that is the mean of the steps' scalars, in an evaluation the one of the epoch's losses.
        """
        if "total" not in losses:
            return {f"loss/{name}": loss for name, loss in losses.items()}
        minimised = losses["total"] if stage == "train" else objective(criterion, losses)
        shown = {**losses, "total": minimised} if self.former else with_total(criterion, losses)
        values = {f"loss/{name}": loss for name, loss in shown.items()}
        if self.objective and not self.former:
            values["objective"] = minimised
        return values

    def epoch_state(self) -> dict[str, Any]:
        """The training epoch's losses and metrics so far, as plain data and tensors.

        They are not in ``state_dict``, which has the metrics' persistent tensors only.
        """
        losses, metrics = self.meters["train"].state_dict(), self.of("train").epoch_state()
        own = {"comparable_total": not self.former, "epochs": dict(self.epochs)}
        return {"losses": losses, "metrics": metrics, **own}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Load a training epoch's losses and metrics.

        Args:
            state: What `epoch_state` returned.
        """
        self.meters["train"].load_state_dict(state["losses"])
        self.of("train").load_epoch_state(state["metrics"])
        # A run has one meaning of its total: callbacks compare it with the values of earlier epochs.
        self.former = not state.get("comparable_total", False)
        self.epochs = dict(state.get("epochs", {}))


def _counts(batch: Batch, criterion: nn.Module) -> Mapping[str, float]:
    """The weight of each task's loss in the epoch's mean."""
    if not isinstance(batch.targets, Targets):
        return {}
    if isinstance(criterion, MultiTaskLoss) and criterion.reduction == "sum":
        return dict.fromkeys(batch.targets.counts, 1.0)
    # A task whose labels of this step are all on other ranks counts there.
    elsewhere = dict.fromkeys(criterion.names, 0) if isinstance(criterion, MultiTaskLoss) else {}
    return {**elsewhere, **batch.targets.counts}


def _add_rows(metrics: StageMetrics, batch: Batch, outputs: Any) -> None:
    if not isinstance(outputs, Mapping) or not isinstance(batch.targets, Mapping):
        return
    for name in metrics.rows:
        if name in batch.targets and name in outputs:
            labels = batch.targets.partial.get(name) if isinstance(batch.targets, Targets) else None
            parts = batch.inputs_of(name), outputs[name], batch.targets[name]
            metrics.add(name, *parts, labels, batch.columns_of(name))
