"""Lightning callbacks: exact resume, a stop to go on from, frozen parts, experts' loads, one task alone."""

from polytask.callbacks._freezer import Freezer
from polytask.callbacks._log_expert_load import LogExpertLoad
from polytask.callbacks._one_task import OneTask
from polytask.callbacks._resume import ExactResume, Stop, StopOnSignal

__all__ = ["ExactResume", "Freezer", "LogExpertLoad", "OneTask", "Stop", "StopOnSignal"]
