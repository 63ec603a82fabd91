"""Files that appear as a whole or not at all, and locks that one process holds."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(file: Path) -> Path:
    """The name, in the same folder, under which a file is written before it is complete.

    Args:
        file: The file.

    Example:
        >>> part_of(Path("run/config.yaml")).name
        'config.yaml.part'
    """
    return file.with_name(f"{file.name}.part")


def publish(part: Path, file: Path) -> None:
    """Give a complete file its name; its content reaches the disk first.

    Args:
        part: The complete file.
        file: Its name, in the same folder; a file of that name is replaced.
    """
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(file)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """The path to write to, which becomes the file when the block ends without an error.

    Args:
        file: The file; its folder must exist.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "table.csv"
        >>> with replacing(file) as part:
        ...     _ = part.write_text("a,b")
        ...     file.exists()
        False
        >>> file.read_text()
        'a,b'
    """
    part = part_of(file)
    yield part
    publish(part, file)


def write_text(file: Path, text: str) -> None:
    """Write a UTF-8 file, or replace one; readers see the old content or the new one.

    Args:
        file: The file; its folder must exist.
        text: Its content, with line breaks as they are.
    """
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8", newline="")


def lock(path: Path, *, wait: bool = False) -> int:
    """Lock a folder or a file against other processes, until the handle is closed or the process ends.

    Args:
        path: A folder, or a file, which is created if it does not exist.
        wait: Whether to wait for the process that holds the lock.

    Returns:
        The open handle.

    Raises:
        BlockingIOError: If another process holds the lock, and ``wait`` is false.

    Example:
        >>> import tempfile
        >>> handle = lock(Path(tempfile.mkdtemp()))
        >>> os.close(handle)
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def locked(path: Path, taken: Exception) -> Iterator[None]:
    """Hold the lock of a folder or a file during the block.

    Args:
        path: As for `lock`.
        taken: The error to raise if another process holds the lock.
    """
    try:
        handle = lock(path)
    except BlockingIOError as error:
        raise taken from error
    try:
        yield
    finally:
        os.close(handle)
