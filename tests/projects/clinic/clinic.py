import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Patients(Dataset):
    """A signal, and a table, for each patient; the signal is missing for some."""

    def __init__(self, begin, end):
        file = np.load("patients.npz")
        self.arrays = {name: torch.from_numpy(file[name][begin:end]) for name in file.files}

    def __len__(self):
        return len(self.arrays["age"])

    def __getitem__(self, i):
        row = {name: array[i] for name, array in self.arrays.items()}
        return {
            "inputs": {"signal": row["signal"], "table": row["table"], "measured": row["measured"]},
            "labels": [row["disease"], row["age"]],
        }


class Fusion(nn.Module):
    """One encoder for each input, and a learned vector for a signal that is missing."""

    def __init__(self):
        super().__init__()
        self.signal = nn.Sequential(nn.Conv1d(1, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(56, 8))
        self.missing = nn.Parameter(torch.zeros(8))
        self.table = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(16)
        self.disease, self.age = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, inputs):
        encoded = self.signal(inputs["signal"][:, None])
        encoded = torch.where(inputs["measured"][:, None], encoded, self.missing)
        features = self.norm(torch.cat([encoded, self.table(inputs["table"])], dim=1)).relu()
        return {"disease": self.disease(features), "age": self.age(features)[:, 0]}
