"""Predictions as one Parquet file, written batch by batch."""

from polytask.runs._prediction_file import read_predictions
from polytask.runs._prediction_writer import PredictionWriter

__all__ = ["PredictionWriter", "read_predictions"]
