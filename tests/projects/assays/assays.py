import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Assays(Dataset):
    """Molecules, of which each was tested in a few assays; NaN in the others."""

    def __init__(self, file, rows, names=None):
        loaded = np.load(file)
        self.x = torch.from_numpy(loaded["x"])[slice(*rows)]
        self.y = torch.from_numpy(loaded["y"])[slice(*rows)]
        self.names = names

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        if self.names is None:
            return self.x[row], {"toxic": self.y[row]}
        return self.x[row], dict(zip(self.names, self.y[row], strict=True))


class Network(nn.Module):
    """A head for each width."""

    def __init__(self, heads, dropout=0.1):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(dropout))
        self.heads = nn.ModuleDict({name: nn.Linear(16, width) for name, width in heads.items()})

    def forward(self, x):
        features = self.shared(x)
        return {name: head(features) for name, head in self.heads.items()}
