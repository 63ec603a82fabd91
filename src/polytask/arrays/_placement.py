"""From a device to the arguments of Lightning's Trainer."""

from typing import Any

import torch

from polytask._errors import UserError


def placement(device: str | torch.device) -> dict[str, Any]:
    """Lightning's arguments for a device.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: If there is no such device.

    Example:
        >>> placement("cpu")
        {'accelerator': 'cpu', 'devices': 1}
    """
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            "device", "must be a torch device", repr(device), "Pass for example cpu, cuda, cuda:1 or mps"
        ) from error
    if chosen.type == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    if chosen.type == "mps" and torch.backends.mps.is_available():
        return {"accelerator": "mps", "devices": 1}
    if chosen.type == "cuda" and (chosen.index or 0) < torch.cuda.device_count():
        return {"accelerator": "cuda", "devices": [chosen.index or 0]}
    found = f"'{device}' with {torch.cuda.device_count()} CUDA devices"
    raise UserError("device", "must be available", found, "Pass cpu")
