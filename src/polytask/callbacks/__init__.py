"""Lightning callbacks: exact resume, a stop with a checkpoint, frozen parts, experts' loads, one task alone.

What it is for: behaviour of a fit that a user may switch on or off, and what the command line adds to every
fit. It knows no configs beyond their plain data, no command line and no comparison.

Begin with `ExactResume` and `StopOnSignal` in ``_resume.py``. `ConfigInCheckpoint` and `KeptCheckpoint`
(``_kept_checkpoint.py``) and `ProgressReport` (``_progress.py``) are added by the command line.
"""

from polytask.callbacks._freezer import Freezer
from polytask.callbacks._log_expert_load import LogExpertLoad
from polytask.callbacks._one_task import OneTask
from polytask.callbacks._resume import ExactResume, Stop, StopOnSignal

__all__ = ["ExactResume", "Freezer", "LogExpertLoad", "OneTask", "Stop", "StopOnSignal"]
