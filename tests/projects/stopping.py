"""A callback that is copied into a project: it stops a run in a place that the environment names."""

import os
import signal

from pytorch_lightning import Callback


class Stopping(Callback):
    """Stops a run as Ctrl-C does, after the n-th batch of ``PROJECT_STOPS_AT="train:n"`` or ``"val:n"``."""

    def __init__(self):
        self.calls = 0

    def batch_ended(self, stage):
        wanted, _, number = os.environ.get("PROJECT_STOPS_AT", "").partition(":")
        if wanted == stage:
            self.calls += 1
            if self.calls == int(number):
                os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, *_):
        self.batch_ended("train")

    def on_validation_batch_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.batch_ended("val")
