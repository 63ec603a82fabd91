"""Images and masks augmented together, in whole batches, by kornia."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._errors import Reason, UserError, hint
from polytask.batch import IGNORE_INDEX, is_missing


class KorniaAugmentation:
    """Augments a batch's images, and the masks among its targets with the same parameters.

    Pass it to a loader as ``augment``. Masks are transformed by nearest neighbours, so that classes stay
    classes. Pixels from outside of an image and missing labels are missing in the result. Requires
    ``pip install polytask[kornia]``.

    Args:
        transforms: Augmentations of kornia (``kornia.augmentation.RandomHorizontalFlip()``), in order.
        masks: Tasks whose targets are maps of the image's size.
        input: The images' name, if inputs are a dict.
        ignore_index: The integer that means "no label".

    Shape:
        - images: ``(rows, channels, height, width)``, floating point.
        - masks: ``(rows, height, width)`` or ``(rows, channels, height, width)``.

    Raises:
        UserError: If kornia is not installed, a transform is no module, or a batch has no such part.

    Example:
        >>> from kornia.augmentation import RandomHorizontalFlip
        >>> augment = KorniaAugmentation([RandomHorizontalFlip(p=1.0)], masks=["kind"])
        >>> image, targets = augment(torch.tensor([[[[0.0, 1.0]]]]), {"kind": torch.tensor([[[3, 4]]])})
        >>> image.tolist(), targets["kind"].tolist()
        ([[[[1.0, 0.0]]]], [[[4, 3]]])
    """

    def __init__(
        self,
        transforms: Iterable[Any],
        masks: Iterable[str] = (),
        input: str | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        try:
            from kornia.augmentation import AugmentationSequential
        except ImportError as error:
            rule = "requires kornia"
            raise UserError(
                "KorniaAugmentation", rule, Reason.said(error), "pip install polytask[kornia]"
            ) from error
        given: list[Any] = list(transforms)
        for transform in given:
            if not isinstance(transform, nn.Module):
                found = type(transform).__name__
                raise UserError("KorniaAugmentation.transforms", "must be augmentations of kornia", found)
        self.masks = [masks] if isinstance(masks, str) else list(masks)
        self.input = input
        self.ignore_index = check_integer(ignore_index, "ignore_index")
        keys = ["input", *["mask"] * len(self.masks)]
        self.pipeline = AugmentationSequential(*given, data_keys=keys) if given else None

    def __call__(self, inputs: Any, targets: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """The batch, augmented.

        Args:
            inputs: Images, or a dict that holds them.
            targets: Targets by task.
        """
        if self.pipeline is None:
            return inputs, targets
        image = _part(inputs, self.input, "input") if isinstance(inputs, Mapping) else inputs
        maps = [_part(targets, name, "masks") for name in self.masks]
        done = self.pipeline(image, *(self._with_presence(own) for own in maps))
        image, *moved = done if maps else [done]
        changed = {
            name: self._without_presence(new, old)
            for name, new, old in zip(self.masks, moved, maps, strict=True)
        }
        inputs = {**inputs, self.input: image} if isinstance(inputs, Mapping) else image
        return inputs, {**targets, **changed}

    def _with_presence(self, mask: Tensor) -> Tensor:
        """Channels of labels, and the same number of channels of their presence."""
        missing = is_missing(mask, self.ignore_index)
        labels, there = mask.masked_fill(missing, 0), ~missing
        parts = [part if part.ndim == 4 else part.unsqueeze(1) for part in (labels, there)]
        return torch.cat([part.to(torch.get_default_dtype()) for part in parts], dim=1)

    def _without_presence(self, moved: Tensor, mask: Tensor) -> Tensor:
        labels, there = moved.chunk(2, dim=1)
        labels = labels if mask.ndim == 4 else labels.squeeze(1)
        there = there if mask.ndim == 4 else there.squeeze(1)
        missing = float("nan") if mask.is_floating_point() else self.ignore_index
        return labels.to(mask.dtype).masked_fill(there < 0.5, missing)

    def __repr__(self) -> str:
        return f"KorniaAugmentation({self.pipeline!r}, masks={self.masks})"


def _part(parts: Mapping[str, Tensor], name: str | None, where: str) -> Tensor:
    if name is None or name not in parts:
        fix = hint(str(name), parts, "Parts")
        raise UserError(f"KorniaAugmentation.{where}", "must be a part of the batch", repr(name), fix)
    return parts[name]
