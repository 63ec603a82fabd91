"""Scenes around a car, made on the spot: eight cameras see a vehicle, a traffic light and the lane."""

import torch
from torch import Tensor

from polytask.data import ArrayDataset

CAMERAS = ("front", "front_right", "right", "back_right", "back", "back_left", "left", "front_left")
SIZE = 16
# Red, green and blue of a red light, of a green one, and of none.
LIGHTS = torch.tensor([[255, 0, 0], [0, 255, 0], [60, 60, 60]])


class Scenes(ArrayDataset):
    """What eight cameras see, as bytes, and what there is to know about it.

    - ``vehicle``: the camera that sees a vehicle, a bright square somewhere in its image; 8 classes.
    - ``light``: the colour of the traffic light, seen in front; red, green or none.
    - ``lane``: how far the car is off the middle of its lane, from -1 to 1, seen in front and behind. Four in
      ten are not known.

    Args:
        rows: How many scenes.
        seed: What they are drawn from.
    """

    def __init__(self, rows: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        images = torch.randint(30, 90, (rows, len(CAMERAS), 3, SIZE, SIZE), generator=draw)
        vehicle = torch.randint(0, len(CAMERAS), (rows,), generator=draw)
        light = torch.randint(0, len(LIGHTS), (rows,), generator=draw)
        lane = 2 * torch.rand(rows, generator=draw) - 1
        _paint_vehicles(images, vehicle, draw)
        images[:, 0, :, :5, 5:11] = LIGHTS[light].view(rows, 3, 1, 1)
        for camera, side in ((0, 1), (4, -1)):
            _paint_lanes(images[:, camera], side * lane)
        lane[torch.rand(rows, generator=draw) < 0.4] = torch.nan
        by_camera = dict(zip(CAMERAS, images.to(torch.uint8).unbind(1), strict=True))
        targets = {"vehicle": vehicle, "light": light, "lane": lane.unsqueeze(1)}
        super().__init__(by_camera, targets, classes={"vehicle": len(CAMERAS), "light": len(LIGHTS)})


def _paint_vehicles(images: Tensor, vehicle: Tensor, draw: torch.Generator) -> None:
    corners = torch.randint(4, SIZE - 5, (len(images), 2), generator=draw)
    for image, camera, (top, left) in zip(images, vehicle.tolist(), corners.tolist(), strict=True):
        image[camera, :, top : top + 4, left : left + 4] = 240


def _paint_lanes(images: Tensor, offset: Tensor) -> None:
    """A bright column in the lowest rows, farther to the right the farther the car is to the left."""
    column = ((1 - offset) / 2 * (SIZE - 1)).round().long()
    images[torch.arange(len(images)), :, -2:, column] = 220
