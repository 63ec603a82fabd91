"""Makes `report.png`, and `losses.png` from a part of it, from three real runs of `examples/digits`.

It needs Debian's `chromium`. With `--crop`, only `losses.png` is made again, from the existing `report.png`.

python docs/make_report_picture.py [--crop]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
CONFIG = DOCS.parent / "examples" / "digits" / "config.yaml"
METHODS = ("Equal", "UW", "PCGrad")
RECORDERS = (
    "{_target_: polytask.diagnostics.GradientRecorder, every: 10}, "
    "{_target_: polytask.diagnostics.Affinity, every: 20}"
)
# Left, upper, right and lower edge of the section with the losses, in pixels.
LOSSES = (0, 428, 1280, 940)


def polytask(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "polytask", *map(str, arguments)], check=True)


def crop() -> None:
    with Image.open(DOCS / "report.png") as page:
        page.crop(LOSSES).save(DOCS / "losses.png", optimize=True)


def main() -> None:
    if sys.argv[1:] == ["--crop"]:
        crop()
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / method for method in METHODS]
        for method, run in zip(METHODS, runs, strict=True):
            weighting = f"system.criterion.weighting._target_=polytask.weighting.{method}"
            callbacks = f"trainer.callbacks=[{RECORDERS}]"
            polytask("fit", CONFIG, "--quiet", "--run-dir", run, weighting, callbacks, "trainer.max_epochs=8")
        page = Path(folder) / "report.html"
        polytask("report", *runs, "--output", page)
        command = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            "--window-size=1280,1240",
        ]
        command += ["--virtual-time-budget=5000", f"--screenshot={DOCS / 'report.png'}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    crop()


if __name__ == "__main__":
    main()
