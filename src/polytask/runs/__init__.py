"""Runs on disk: folders, checkpoints, predictions, the CSV log, the environment, and how a run is found.

What it is for: everything that knows where a run keeps its files and what is in them. It trains nothing,
prints nothing and shows nothing, and importing it imports no torch.

Begin with `Run` in ``_folders.py``. ``_checkpoints.py`` reads checkpoints without running code,
``_prediction_writer.py`` and ``_prediction_file.py`` write predictions, ``_csv_logger.py`` writes
``metrics.csv`` and ``_metrics_csv.py`` reads it, ``_environment.py`` records versions, ``_lookup.py`` finds
the run that a command uses.
"""

from polytask.runs._folders import CONFIG, Run, create, existing, latest, newest

__all__ = ["CONFIG", "Run", "create", "existing", "latest", "newest"]
