import builtins

import pytest
import torch

from polytask import UserError
from polytask.data import KorniaAugmentation, create_multitask_dataloader

augmentation = pytest.importorskip("kornia.augmentation")


def batch(rows=4, size=6):
    mask = torch.arange(rows * size * size).view(rows, size, size) % 5
    return mask.float().unsqueeze(1).expand(-1, 3, -1, -1).contiguous(), {
        "map": mask,
        "kind": torch.arange(rows),
    }


def test_image_and_masks_move_together():
    image, targets = batch()
    depth = targets["map"].float().unsqueeze(1).masked_fill(targets["map"].unsqueeze(1) == 3, float("nan"))
    torch.manual_seed(0)
    augment = KorniaAugmentation(
        [augmentation.RandomHorizontalFlip(p=0.5), augmentation.RandomVerticalFlip(p=0.5)], ["map", "depth"]
    )
    moved, after = augment(image, {**targets, "depth": depth})
    assert not torch.equal(moved, image)
    assert torch.equal(moved[:, 0].round().long(), after["map"])
    assert after["map"].dtype is torch.int64
    assert after["depth"].shape == depth.shape
    assert torch.equal(after["depth"].isnan()[:, 0], after["map"] == 3)
    assert torch.equal(after["kind"], targets["kind"])


def test_what_lies_outside_has_no_label():
    image, targets = batch()
    targets["map"][0, 0, 0] = 255
    turn = augmentation.RandomAffine(degrees=0.0, translate=(0.5, 0.5), p=1.0)
    torch.manual_seed(0)
    _, after = KorniaAugmentation([turn], ["map"], ignore_index=255)(image, targets)
    assert set(after["map"].unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    assert (after["map"] == 255).any()


def test_in_a_loader_with_named_images():
    image, targets = batch()
    augment = KorniaAugmentation([augmentation.RandomHorizontalFlip(p=1.0)], "map", input="image")
    loader = create_multitask_dataloader(
        {"image": image, "speed": torch.arange(4.0)}, targets, 4, shuffle=False, augment=augment
    )
    inputs, after = next(iter(loader))
    torch.testing.assert_close(inputs["image"], image.flip(-1))
    assert torch.equal(after["map"], targets["map"].flip(-1))
    assert torch.equal(inputs["speed"], torch.arange(4.0))


def test_colours_alone_need_no_mask():
    image, targets = batch()
    moved, after = KorniaAugmentation([augmentation.RandomInvert(p=1.0)])(image, targets)
    assert not torch.equal(moved, image)
    assert after["map"] is targets["map"]
    same, _ = KorniaAugmentation([])(image, targets)
    assert same is image


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: KorniaAugmentation([3]),
            "KorniaAugmentation.transforms: must be augmentations of kornia, got int.",
        ),
        (
            lambda: KorniaAugmentation([augmentation.RandomInvert()], ["mpa"])(*batch()),
            "KorniaAugmentation.masks: must be a part of the batch, got 'mpa'. Did you mean 'map'?",
        ),
        (
            lambda: KorniaAugmentation([augmentation.RandomInvert()])({"image": batch()[0]}, {}),
            "KorniaAugmentation.input: must be a part of the batch, got None. Parts: image.",
        ),
    ],
)
def test_unusable_parts(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message


def test_kornia_is_imported_by_those_who_name_it(monkeypatch):
    found = builtins.__import__

    def without(name, *rest):
        if name.startswith("kornia"):
            raise ImportError("No module named 'kornia'")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"requires kornia.*pip install polytask\[kornia\]"):
        KorniaAugmentation([])
