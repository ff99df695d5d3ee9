"""Write a file whole or not at all."""

import os
from pathlib import Path


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write a file under another name first: a reader never sees half of it, and a failed write leaves nothing.

    Args:
        path: the file; its folder exists.
        data: its content.

    Raises:
        OSError: about `path` itself, where it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise type(error)(error.errno, error.strerror, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
