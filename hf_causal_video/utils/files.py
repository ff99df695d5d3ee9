"""Write a file or a folder whole or not at all: under another name first, which becomes the final one at the end.

A reader never sees half of a file, and a write that fails leaves nothing. A kill leaves the other name;
`remove_partial` clears it away where only one run writes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def partial_path(path: str | Path) -> Path:
    """Name of an unfinished file or folder, next to the final one; each process has its own.

    Example:
        >>> partial_path("out/a.png").name.startswith(".a.png."), is_partial(partial_path("out/a.png").name)
        (True, True)
    """
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def is_partial(name: str) -> bool:
    """Tell whether a name is one that `partial_path` gives."""
    return name.startswith(".") and name.endswith(".part")


def remove_partial(folder: str | Path, name: str = "*") -> None:
    """Remove the unfinished files that killed runs left in a folder; only while no other run writes there.

    Args:
        folder: need not exist.
        name: pattern of the final names.
    """
    for leftover in Path(folder).glob(f".{name}.part"):
        leftover.unlink()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; it becomes the file when the block ends, and is removed when the block fails.

    Args:
        path: the file; its folder exists.

    Raises:
        OSError: about `path` itself, where it cannot be written.

    Example:
        >>> with whole_file("/tmp/a.txt") as partial:
        ...     _ = partial.write_text("a")
        >>> Path("/tmp/a.txt").read_text()
        'a'
    """
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None or error.filename2 or os.fsdecode(error.filename) == str(partial):
            error.filename = str(path)
            error.filename2 = None
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a new folder to write into; as `whole_file`.

    Args:
        path: the folder, which is absent or empty.
    """
    partial = partial_path(Path(path).resolve())  # "." has no name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if Path(path).is_dir():
            Path(path).rmdir()
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write a file; errors as `whole_file`.

    Args:
        path: the file; its folder exists.
        content: bytes, or text that is stored as UTF-8.
    """
    path = Path(path)
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
