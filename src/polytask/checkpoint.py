"""Checkpoints: read without running code, loaded with messages that name what differs."""

from polytask.callbacks._kept_checkpoint import ConfigInCheckpoint, KeptCheckpoint
from polytask.runs._checkpoints import check_optimizer, load_weights, read_checkpoint

__all__ = ["ConfigInCheckpoint", "KeptCheckpoint", "check_optimizer", "load_weights", "read_checkpoint"]
