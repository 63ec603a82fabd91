import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Parity(Dataset):
    """Pictures of digits as a dict of the picture and two labels."""

    def __init__(self, train):
        self.file = np.load("digits.npz")
        self.rows = range(70) if train else range(70, 100)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        label = int(self.file["labels"][row])
        return {
            "data": torch.from_numpy(self.file["images"][row]).flatten(),
            "digit_label": label,
            "parity_label": 0 if label % 2 == 0 else 1,
        }


class Multitask(nn.Module):
    """The tasks' outputs as a list, in the order of the heads."""

    def __init__(self, backbone, task_heads):
        super().__init__()
        self.backbone = backbone
        self.task_heads = nn.ModuleList(task_heads)

    def forward(self, x):
        shared = self.backbone(x)
        return [head(shared) for head in self.task_heads]
