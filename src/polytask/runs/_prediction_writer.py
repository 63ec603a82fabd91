"""A Lightning callback that writes predictions as one Parquet file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from polytask._lightning._noise import Silence, silence

if TYPE_CHECKING:
    from polytask.runs._prediction_file import PredictionFile


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.parquet``: a row for each input in the data's order, a column for each task.

    The column ``row`` is the number of the row in its data set; with several loaders ``loader`` names which
    of them it is, with a `polytask.data.TaskLoader` the task whose data it is. Columns of ids follow, if the
    batch adapter has an ``id_accessor``. If a task is called like one of these columns, the column's name
    begins with an underscore.

    A task's column holds numbers if its output has one for each row, lists of fixed length if it has a
    vector, and fixed-shape tensors otherwise; lists, if the shape differs between rows. Rows without a
    prediction of the task, such as those of other tasks with task ids, are null. The file appears when all
    predictions are written; a killed run leaves none. Several processes that share the folder write one file,
    others ``predictions-<rank>.parquet`` each.

    Args:
        folder: The folder of the file; created if it does not exist.
        classes: By task the names of its classes, in order, which add the columns ``<task>.label`` and
            ``<task>.probability``.

    Raises:
        UserError: If an output is not a tensor with a row for each input.

    Example:
        >>> PredictionWriter("predictions").path.name
        'predictions.parquet'
    """

    def __init__(self, folder: str | Path, classes: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(write_interval="batch")
        self.path = Path(folder) / "predictions.parquet"
        self.classes = dict(classes or {})
        self._file: PredictionFile | None = None
        self._tasks: tuple[str, ...] = ()
        self._numbers: dict[tuple[int, str | None], int] = {}
        self._counted: dict[tuple[int, str | None], int] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a file; each of several processes writes its own."""
        # Only who predicts needs pyarrow.
        from polytask.runs._prediction_file import PredictionFile

        silence(Silence.PREDICTIONS)
        self._tasks = tuple(getattr(pl_module, "names", ()))
        self._numbers, self._counted = {}, {}
        path = self.path if trainer.world_size == 1 else self._part(trainer.global_rank)
        self._file = PredictionFile(path, self._order)

    @property
    def _order(self) -> tuple[str, ...]:
        return self._free("loader"), self._free("row"), *self._tasks

    def _free(self, name: str) -> str:
        return f"_{name}" if name in self._tasks else name

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{rank}{self.path.suffix}")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append one batch."""
        from polytask.runs import _prediction_columns as made

        assert self._file is not None
        outputs, size, routed = prediction["outputs"], prediction["size"], prediction["rows"]
        loader, rows = prediction["loader"], prediction["row"]
        place = dataloader_idx, loader
        if prediction["indexed"] and batch_indices is not None and len(batch_indices) == size:
            rows = batch_indices
        if rows is None:
            first = self._counted.get(place, 0)
            rows = range(first, first + size)
            self._counted[place] = first + size
        columns = {} if loader is None else {self._free("loader"): made.repeated(loader, size)}
        columns[self._free("row")] = made.id_column("row", list(rows), size)
        for key, ids in prediction["ids"].items():
            columns[f"_{key}" if key in (*columns, *self._tasks) else key] = made.id_column(key, ids, size)
        for task in dict.fromkeys([*(self._tasks if routed else ()), *outputs]):
            own = None if routed is None else routed.get(task)
            if task not in outputs:
                columns[task] = made.nothing(size)
                continue
            columns[task] = made.output_column(task, outputs[task], size, own)
            if task in self.classes:
                columns |= made.class_columns(task, outputs[task], self.classes[task], size, own)
        for task, (target, missing) in prediction["targets"].items():
            own = None if routed is None else routed.get(task)
            columns[f"{task}.target"] = made.target_column(target, missing, size, own)
        tasks = {*self._tasks, *outputs}
        self._file.append(columns, tasks, (self._numbers.setdefault(place, len(self._numbers)), rows))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the file; the first of several processes makes one of theirs."""
        if self._file is not None:
            self._file.finish()
        if trainer.world_size == 1:
            return
        from polytask.runs._prediction_file import merge

        # A count in each process says nothing about the data.
        known = trainer.strategy.reduce_boolean_decision(not self._counted, all=True)
        files = [self._part(rank) for rank in range(trainer.world_size)]
        if known and trainer.is_global_zero and all(file.exists() for file in files):
            merge(files, self.path, self._order)
        trainer.strategy.barrier("predictions")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remove an incomplete file."""
        if self._file is not None:
            self._file.discard()
