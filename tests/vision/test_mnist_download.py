"""What the MNIST example asks of torchvision where its files are missing."""

from pathlib import Path
from types import ModuleType

import pytest
from torchvision import datasets

from tests.scripts import load_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist" / "mnist.py"


@pytest.fixture
def mnist() -> ModuleType:
    return load_script("mnist_download", EXAMPLE)


def test_torchvision_downloads_to_where_the_files_are_read(
    tmp_path: Path, mnist: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stand(datasets.MNIST):
        """Has torchvision's folders and needs no network."""

        def __init__(self, root: str, download: bool) -> None:
            self.root = root
            assert download
            write(Path(self.raw_folder))

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for names in (mnist.IMAGES, mnist.LABELS):
            for name in names.values():
                shape = (3, 28, 28) if "idx3" in name else (3,)
                header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
                (folder / name).write_bytes(header + bytes(3 * 784 if "idx3" in name else 3))

    Stand.__name__ = "MNIST"  # torchvision names the folder after the class
    monkeypatch.setattr(datasets, "MNIST", Stand)
    assert len(mnist.MNIST(str(tmp_path), "test")) == 3


def test_a_failed_download_says_which_files_go_where(
    tmp_path: Path, mnist: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str, download: bool) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(FileNotFoundError, match="no network") as caught:
        mnist.MNIST(str(tmp_path), "train")
    for text in (*mnist.IMAGES.values(), *mnist.LABELS.values(), str(tmp_path / "MNIST" / "raw")):
        assert text in str(caught.value)
