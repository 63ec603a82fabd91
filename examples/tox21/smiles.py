"""Molecules as counts of the pieces of text that their SMILES are made of."""

import numpy as np
import pyarrow as pa
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor

from polytask.data import TableInputs


class Ngrams(TableInputs):
    """The logarithm of how often each piece of up to ``longest`` characters occurs, hashed to ``size``.

    Nothing is learnt from the data, so that a new molecule is encoded as those of the training were.

    Args:
        column: The column of the SMILES.
        size: Features.
        longest: Characters of the longest pieces.
    """

    def __init__(self, column: str, size: int = 2048, longest: int = 4) -> None:
        self.names = (column,)
        self.vectorizer = HashingVectorizer(
            analyzer="char",
            ngram_range=(1, longest),
            n_features=size,
            lowercase=False,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )

    def encode(self, table: pa.Table) -> Tensor:
        counts = self.vectorizer.transform(table[self.names[0]].to_pylist())
        return torch.from_numpy(np.log1p(counts.toarray()))
