"""Losses and metrics of the stages, kept on the device until they are logged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from polytask._tasks import check_known
from polytask.batch import Batch
from polytask.losses import MultiTaskLoss, Targets
from polytask.metrics import StageMetrics
from polytask.metrics._loss_meter import LossMeter
from polytask.system._stages import STAGES

MEASURED = STAGES[:3]


class StageLog(nn.Module):
    """Losses and metrics of the stages ``train``, ``val`` and ``test``.

    Args:
        names: All tasks, in order.
        metrics: Metrics by task, by stage.
        adapters: The adapters of every stage.
        auxiliary: Losses that belong to no task.

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

    def of(self, stage: str) -> StageMetrics:
        """The metrics of a stage."""
        metrics = self.metrics[f"stage_{stage}"]
        assert isinstance(metrics, StageMetrics)
        return metrics

    def log_keys(self, stages: Iterable[str]) -> list[str]:
        """The keys that these stages log at the end of an epoch, as far as they can be known before it.

        Args:
            stages: Stages that have data.
        """
        keys = []
        for stage in stages:
            if stage in MEASURED:
                keys += [f"{stage}/loss/{name}/epoch" for name in self.meters[stage].names]
                keys += [f"{stage}/{key}/epoch" for key in self.of(stage).entries()]
        return keys

    def may_log(self, key: str, stages: Iterable[str], any_loss: bool = False) -> bool:
        """Whether these stages may log a key at the end of an epoch.

        Args:
            key: A log key.
            stages: Stages that have data.
            any_loss: Whether the criterion may return losses under any name.

        Example:
            >>> from polytask.system._stages import adapters_by_stage
            >>> log = StageLog(["digit"], {}, adapters_by_stage(None))
            >>> [log.may_log(f"val/loss/{name}/epoch", ["val"]) for name in ("digit", "dice")]
            [True, False]
            >>> log.may_log("val/loss/dice/epoch", ["val"], any_loss=True)
            True
        """
        stage, _, rest = key.partition("/")
        name = rest.removesuffix("/epoch")
        if stage not in MEASURED or stage not in tuple(stages) or name == rest:
            return False
        if name.startswith("loss/"):
            loss = name.removeprefix("loss/")
            return loss in self.meters[stage].names or (any_loss and loss != "")
        return (stage, name) == ("train", "skipped") or self.of(stage).may_log(name)

    def add(
        self,
        stage: str,
        batch: Batch,
        outputs: Any,
        total: Tensor,
        losses: Mapping[str, Tensor],
        criterion: nn.Module,
        step: int,
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
        """
        self.meters[stage].add(losses, total, _counts(batch, criterion), batch.size, step)
        metrics = self.of(stage)
        if not isinstance(outputs, Mapping) or not isinstance(batch.targets, Mapping):
            return
        for name in metrics.rows:
            if name in batch.targets and name in outputs:
                metrics.add(
                    name, batch.inputs_of(name), outputs[name], batch.targets[name], batch.labelled.get(name)
                )

    def step_values(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The training's values over the steps since the last reading, by log key.

        Args:
            losses: The mean losses over these steps.
        """
        values = {f"train/loss/{name}/step": loss for name, loss in losses.items()}
        metrics = self.of("train").step_values()
        return values | {f"train/{key}/step": float(value) for key, value in metrics.items()}

    def epoch_values(
        self,
        stage: str,
        criterion: nn.Module,
        add_up: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, float]:
        """A stage's values since the last call, by log key.

        The total of an evaluation is computed from the tasks' mean losses if the criterion is a
        `MultiTaskLoss` with its own forward; otherwise, and in training, it is the mean of the steps' totals.

        Args:
            stage: ``train``, ``val`` or ``test``.
            criterion: The criterion that computed the losses.
            add_up: Adds a tensor up over all processes; None if there is one.
        """
        meter, metrics = self.meters[stage], self.of(stage)
        losses = meter.epoch(add_up)
        if stage != "train" and isinstance(criterion, MultiTaskLoss):
            losses = criterion.added_up(losses)
        values = {f"{stage}/loss/{name}/epoch": loss for name, loss in losses.items()}
        values |= {f"{stage}/{key}/epoch": float(value) for key, value in metrics.compute(add_up).items()}
        meter.reset()
        metrics.reset()
        return values

    def epoch_state(self) -> dict[str, Any]:
        """The training epoch's losses and metrics so far, as plain data and tensors.

        They are not in ``state_dict``, which has the metrics' persistent tensors only.
        """
        return {"losses": self.meters["train"].state_dict(), "metrics": self.of("train").epoch_state()}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Load a training epoch's losses and metrics.

        Args:
            state: What `epoch_state` returned.
        """
        self.meters["train"].load_state_dict(state["losses"])
        self.of("train").load_epoch_state(state["metrics"])


def _counts(batch: Batch, criterion: nn.Module) -> Mapping[str, float]:
    """The weight of each task's loss in the epoch's mean."""
    if not isinstance(batch.targets, Targets):
        return {}
    if isinstance(criterion, MultiTaskLoss) and criterion.reduction == "sum":
        return dict.fromkeys(batch.targets.counts, 1.0)
    # A task whose labels of this step are all on other ranks counts there.
    elsewhere = dict.fromkeys(criterion.names, 0) if isinstance(criterion, MultiTaskLoss) else {}
    return {**elsewhere, **batch.targets.counts}
