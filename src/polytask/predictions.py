"""Predictions as one Parquet file, written batch by batch."""

from polytask.runs._predictions import PredictionWriter, read_predictions

__all__ = ["PredictionWriter", "read_predictions"]
