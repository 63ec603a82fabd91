"""A CSV file of metrics that a resumed run goes on writing."""

from polytask.runs._csv_logger import CSVLogger

__all__ = ["CSVLogger"]
