"""What a parser costs before a command does anything: whole processes that print their help.

polytask's own parser (argparse) against the same commands and options in other libraries, where these are
installed; interleaved, and written to ``results/``.

    python benchmarks/parsers.py [--rounds 20]
"""

import argparse
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec

from _table import write_table

COMMANDS = ("fit", "validate", "test", "predict", "check", "show", "init")
OPTIONS = (
    "arguments: list[str], config: list[str] = [], allow: list[str] = [], project: Path = Path('.'), "
    "seed: int = 0, ckpt: str = 'best', run_dir: Path = Path('.'), dry_run: bool = False, "
    "quiet: bool = False, resume: bool = False, debug: bool = False"
)


def functions(decorator: str) -> str:
    return "\n".join(f"@{decorator}\ndef {name}({OPTIONS}):\n    'Run.'" for name in COMMANDS)


def programs() -> dict[str, list[str]]:
    """Python code by what it shows; it ends by printing the help."""
    found = {
        "bare Python": ["-c", "pass"],
        "Python that imports argparse": ["-c", "import argparse"],
        "polytask --help (argparse)": ["-m", "polytask", "--help"],
        "polytask fit --help (argparse)": ["-m", "polytask", "fit", "--help"],
    }
    libraries = {"typer": ("Typer", "app.command()"), "cyclopts": ("App", "app.command")}
    for library, (app, decorator) in libraries.items():
        if find_spec(library) is not None:
            for arguments in ("--help", "fit --help"):
                lines = (
                    f"import sys, {library}",
                    "from pathlib import Path",
                    f"sys.argv = ['app', *{arguments.split()}]",
                    f"app = {library}.{app}()",
                    functions(decorator),
                    "app()",
                )
                code = "\n".join(lines)
                found[f"the same in {library} {version(library)}: {arguments}"] = ["-c", code]
    return found


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    found = programs()
    for arguments in found.values():
        seconds(arguments)  # compiles what is not compiled yet
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, arguments in found.items():
            times[name].append(1000 * seconds(arguments))
    rows = [
        [name, f"{statistics.median(values):.0f}", f"{min(values):.0f}-{max(values):.0f}"]
        for name, values in times.items()
    ]
    title = f"Milliseconds of a whole process, median of {rounds} interleaved rounds"
    write_table("parsers", title, ["process", "median", "min-max"], rows)


if __name__ == "__main__":
    main()
