import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Rooms(Dataset):
    """Images with the class of each pixel, 255 if unknown; depth, with holes; and normals."""

    def __init__(self, begin, end):
        file = np.load("rooms.npz")
        self.arrays = {name: torch.from_numpy(file[name][begin:end]) for name in file.files}

    def __len__(self):
        return len(self.arrays["image"])

    def __getitem__(self, i):
        return {name: array[i] for name, array in self.arrays.items()}


class Dense(nn.Module):
    """Three heads on one encoder: classes, a depth and a normal for each pixel."""

    def __init__(self, width=6):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.segment, self.depth, self.normal = (nn.Conv2d(width, n, 1) for n in (4, 1, 3))

    def forward(self, image):
        features = self.encoder(image)
        return {
            "segment": self.segment(features),
            "depth": self.depth(features)[:, 0],
            "normal": nn.functional.normalize(self.normal(features), dim=1),
        }
