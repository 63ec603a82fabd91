"""Lightning callbacks: exact resume, a stop that can be resumed, frozen parts, experts' loads."""

from polytask.callbacks._freezer import Freezer
from polytask.callbacks._log_expert_load import LogExpertLoad
from polytask.callbacks._resume import ExactResume, Stop, StopOnSignal

__all__ = ["ExactResume", "Freezer", "LogExpertLoad", "Stop", "StopOnSignal"]
