import numpy as np
import torch
from torch.utils.data import Dataset


class MultiTaskShapes(Dataset):
    """Images with a class, and a mask with a square in it for half of the classes."""

    def __init__(self, root, train, transform=None):
        file = np.load(f"{root}shapes.npz")
        rows = slice(0, 60) if train else slice(60, 90)
        self.images, self.labels, self.transform = file["images"][rows], file["labels"][rows], transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = torch.from_numpy(self.images[index]), int(self.labels[index])
        mask = torch.zeros(8, 8, dtype=torch.long)
        if label < 2:
            mask[2:6, 2:6] = 1
        if self.transform is not None:
            image = self.transform(image)
        return image, {"classification": label, "segmentation": mask}


class Scale:
    """A transform as those of torchvision are: made from a config, called with an image."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, image):
        return image * self.factor


def build_dataset(root=".datasets/", train=True, transform=None):
    return MultiTaskShapes(root=root, train=train, transform=transform)
