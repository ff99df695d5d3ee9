"""The identity of a checkpoint's weights: the hashes of its safetensors files, which the Hub shows as well.

Why: a number in a folder says little unless one knows that these weights gave it; evaluation writes this identity
beside its numbers, and a push compares.
"""

import hashlib
from pathlib import Path


def weights_digest(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint, by file name; {} for a folder without any.

    Args:
        folder: a checkpoint, whole or adapters.

    Example:
        >>> weights_digest("/nowhere")
        {}
    """
    found = {}
    for file in sorted(Path(folder).glob("*model*.safetensors")):
        with file.open("rb") as opened:
            found[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found
