"""A Lightning callback that writes predictions as one Parquet file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from polytask._lightning._noise import Silence, silence

if TYPE_CHECKING:
    from polytask.runs._prediction_file import PredictionFile


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.parquet``: a row for each input in the loader's order, a column for each task.

    A task's column holds numbers if its output has one for each row, lists of fixed length if it has a
    vector, and fixed-shape tensors otherwise. With task ids, the rows of other tasks are null. The file
    appears when all predictions are written; a killed run leaves none.

    Args:
        folder: The folder of the file; created if it does not exist.

    Raises:
        UserError: If an output is not a tensor with a row for each input.

    Example:
        >>> PredictionWriter("predictions").path.name
        'predictions.parquet'
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.path = Path(folder) / "predictions.parquet"
        self._file: PredictionFile | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a file; each of several processes writes its own."""
        # Only who predicts needs pyarrow.
        from polytask.runs._prediction_file import PredictionFile

        silence(Silence.PREDICTIONS)
        if trainer.world_size > 1:
            self.path = self.path.with_name(f"predictions-{trainer.global_rank}.parquet")
        self._file = PredictionFile(self.path, list(getattr(pl_module, "names", ())))

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
        assert self._file is not None
        self._file.append(prediction["outputs"], prediction["rows"], prediction["size"])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.finish()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remove an incomplete file."""
        if self._file is not None:
            self._file.discard()
