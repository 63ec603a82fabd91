import numpy as np
from torch import nn
from torch.utils.data import Dataset


class Mixed(Dataset):
    """Each row is of one task: (data, target, task_id)."""

    def __init__(self, begin, end):
        file = np.load("rows.npz")
        self.data, self.target, self.task = (file[name][begin:end] for name in ("data", "target", "task"))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i], self.target[i], self.task[i]


class MultiTaskModel(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.base_network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.task_networks = nn.ModuleList([nn.Linear(8, width) for width in widths])

    def forward(self, x, task_id):
        return self.task_networks[task_id](self.base_network(x))


class AsFloat(nn.Module):
    """The targets of the regression, which are stored as classes are, as a column of values."""

    def forward(self, target):
        return target.float()[:, None]
