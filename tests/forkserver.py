"""Commands in processes of their own, forked from one that has imported everything.

A fresh interpreter imports torch and Lightning for seconds before it does what a test asks for. The server
imports them once, computes nothing, and forks: a child has its own working directory, environment, arguments,
output and exit code, and runs its module as ``python -m`` does. What the start of an interpreter is part of
(what is imported when, hooks, signals that arrive meanwhile) is tested with ``subprocess``.
"""

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import polytask

ROOT = Path(__file__).parents[1]
# Ends what hangs; the slowest machine is done long before.
PATIENCE = 1800


class Process:
    """A module that runs.

    Args:
        answers: The FIFO to which the server writes the process's id and then its exit code.
        outputs: The files of its standard output and of its standard error.
        server: A descriptor that is readable once the server has ended.
    """

    def __init__(self, answers: Path, outputs: tuple[Path, Path], server: int) -> None:
        self._answers = os.open(answers, os.O_RDONLY | os.O_NONBLOCK)
        self._server = server
        self._outputs = outputs
        self._lines: list[str] = []

    def _line(self, number: int) -> int:
        while len(self._lines) <= number:
            ready, _, _ = select.select([self._answers, self._server], [], [], PATIENCE)
            if not ready:
                raise TimeoutError(f"no answer in {PATIENCE} s")
            said = os.read(self._answers, 4096).decode() if self._answers in ready else ""
            if not said:
                raise RuntimeError("the fork server has ended; its standard error says why")
            self._lines += said.split()
        return int(self._lines[number])

    def stdout(self) -> str:
        """What it has printed so far."""
        return self._outputs[0].read_text()

    def stderr(self) -> str:
        """What it has said on standard error so far."""
        return self._outputs[1].read_text()

    def wait(self) -> int:
        """Wait until it ends; its exit code, which is minus the signal's number if one ended it."""
        return self._line(1)

    def kill(self) -> None:
        """End it, if it still runs."""
        pid = self._line(0)
        if len(self._lines) == 1 and not select.select([self._answers], [], [], 0)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(self._answers)


class ForkServer:
    """The process that forks, and what it is asked for; a context manager around it."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="forkserver")
        self._started = 0
        command = [sys.executable, "-W", "error", "-m", "tests.forkserver"]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, text=True)
        self._ended = os.pidfd_open(self._server.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        os.close(self._ended)
        self._folder.cleanup()

    def start(
        self,
        module: str,
        *arguments: str,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        warnings: str = "error",
    ) -> Process:
        """Start ``python -W <warnings> -m <module> <arguments>``.

        Args:
            module: The module's import path.
            arguments: The arguments after it.
            cwd: Its working directory.
            env: Its environment, this process's by default.
            warnings: What warnings are: ``error``, ``ignore`` or ``default``.
        """
        self._started += 1
        folder = Path(self._folder.name) / str(self._started)
        folder.mkdir()
        os.mkfifo(folder / "answers")
        outputs = folder / "out", folder / "err"
        for output in outputs:
            output.touch()
        process = Process(folder / "answers", outputs, self._ended)
        wanted = {
            "argv": [module, *arguments],
            "folder": str(folder),
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
            "warnings": warnings,
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(wanted) + "\n")
        self._server.stdin.flush()
        return process

    def run(
        self, module: str, *arguments: str, cwd: Path = ROOT, warnings: str = "error"
    ) -> subprocess.CompletedProcess[str]:
        """Like `start`, and wait for its end."""
        process = self.start(module, *arguments, cwd=cwd, warnings=warnings)
        code = process.wait()
        process.kill()
        return subprocess.CompletedProcess([module, *arguments], code, process.stdout(), process.stderr())


def serve() -> dict[str, Any]:
    """Fork for every line of the input; in a child, what it has to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        wanted: dict[str, Any] = json.loads(line)
        answers = os.open(Path(wanted["folder"], "answers"), os.O_WRONLY)
        # One that waits for the other, since a process cannot write down which signal ended it.
        pid = os.fork()
        if not pid:
            os.close(answers)
            return wanted
        os.write(answers, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    sys.exit()


def become(wanted: dict[str, Any]) -> None:
    """Be a process that was started as the client says, and run its module."""
    folder = Path(wanted["folder"])
    for number, name, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, "out", os.O_WRONLY),
        (2, "err", os.O_WRONLY),
    ):
        file = os.open(folder / name, mode)
        os.dup2(file, number)
        os.close(file)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    module, *arguments = wanted["argv"]
    sys.argv = [module, *arguments]
    sys.path[0] = wanted["cwd"]
    if wanted["warnings"] != "error":
        sys.warnoptions[:] = [wanted["warnings"]]
        warnings.simplefilter(wanted["warnings"])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Import what most commands need, then serve."""
    for name in ("torch.distributed", "torch.utils.tensorboard", "rich.console", "polytask.diagnostics"):
        import_module(name)
    for name in polytask.__all__:
        getattr(polytask, name)
    gc.collect()
    gc.freeze()
    become(serve())


if __name__ == "__main__":
    main()
