"""Runs on disk: folders, checkpoints, predictions, the CSV log, the environment, and how a run is found.

Begin with `Run`. Reading records imports no torch. This room trains nothing and prints nothing.
"""

from polytask.runs._folders import CONFIG, Run, create, existing, latest, newest

__all__ = ["CONFIG", "Run", "create", "existing", "latest", "newest"]
