"""Makes `picture.svg` from a real run of `examples/digits`.

python docs/make_picture.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
CONFIG = DOCS.parent / "examples" / "digits" / "config.yaml"
COMMANDS = (["fit"], ["test", "--ckpt", "best"])


def output(arguments: list[str], folder: str) -> list[str]:
    command = [sys.executable, "-m", "polytask", arguments[0], str(CONFIG), *arguments[1:]]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def shortened(lines: list[str]) -> list[str]:
    """The last epoch, and all that follows."""
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    return ["...", *lines[epochs[-1] :]] if epochs else lines


def main() -> None:
    console = Console(record=True, width=112, force_terminal=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        for arguments in COMMANDS:
            shown = " ".join(["polytask", arguments[0], "examples/digits/config.yaml", *arguments[1:]])
            console.print(f"[bold]$ {shown}[/bold]")
            for line in shortened(output(arguments, folder)):
                console.print(Text(line))
    (DOCS / "picture.svg").write_text(console.export_svg(title="polytask", unique_id="polytask"))


if __name__ == "__main__":
    main()
