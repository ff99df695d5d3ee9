"""Local networks of a checkpoint: found by the fingerprint of their files, wherever the checkpoint goes."""

import hashlib
import os
from pathlib import Path

from hf_causal_video.features.store.provenance import CONTENT_HASH
from hf_causal_video.utils.errors import CausalVideoError

NETWORKS = "networks"  # folder of local networks in or next to a checkpoint
WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
LEVELS_UP = 3  # folders above a checkpoint in which its networks are looked for


def find_network(
    name: str, revision: str | None, checkpoint: str | Path | None, flag: str, commit: str | None = None
) -> str:
    """Find where the network of a checkpoint lies now.

    Why: a checkpoint names the folder of a local network as it was called in training. When it is moved with the
    checkpoint, or copied into it, the name leads nowhere; the fingerprint of its files tells it from any other.

    Args:
        name: folder or Hub id of the network in training.
        revision: `sha256-...` for a local folder, see `fingerprint_folder`; anything else is left to the Hub.
        checkpoint: folder of the checkpoint; the network is looked for in it, next to it and further up, by the last
            parts of its name and in folders called "networks". Of a Hub id, its folder "networks" is downloaded.
        flag: how a user can name the network, for the error.
        commit: of the repository, if the checkpoint is a Hub id.

    Returns:
        A folder with this fingerprint, or the name if it needs no search.

    Raises:
        CausalVideoError: a local network that is in none of these places, or only others of its name.
    """
    if not str(revision).startswith(CONTENT_HASH):
        return name
    if os.path.isdir(name) and fingerprint_folder(name) == revision:
        return name
    candidates = [Path(name)]
    if checkpoint is not None and not Path(checkpoint).is_dir():
        checkpoint = _download_networks(str(checkpoint), commit)
    if checkpoint is not None and Path(checkpoint).is_dir():
        parts = Path(name).parts
        tails = [Path(*parts[start:]) for start in range(len(parts)) if parts[start] not in ("..", "/")]
        bases = (Path(os.path.abspath(checkpoint)), Path(checkpoint).resolve())  # as named, and where the files lie
        folders = [folder for base in bases for folder in (base, *base.parents[:LEVELS_UP])]
        candidates += [folder / middle / tail for folder in folders for middle in ("", NETWORKS) for tail in tails]
    others = []
    for folder in dict.fromkeys(candidates):
        if not folder.is_dir():
            continue
        if fingerprint_folder(folder) == revision:
            return str(folder)
        others.append(str(folder))
    raise CausalVideoError(
        f"the network {name!r} of this checkpoint is missing",
        found=f"other networks in {', '.join(others)}" if others else f"no such folder here or next to {checkpoint}",
        expected=f"the folder with the fingerprint {revision}",
        fix=f"copy it next to the checkpoint, or name its folder with {flag}",
    )


def _download_networks(repository: str, commit: str | None) -> str | None:
    """Download the networks that a repository carries with its model; None if it cannot be read."""
    from huggingface_hub import snapshot_download

    patterns = [f"{NETWORKS}/*{pattern}" for pattern in ("/*.safetensors", "/*.json", "/*.txt", "/*.model")]
    try:
        return snapshot_download(repository, revision=commit, allow_patterns=patterns)
    except (OSError, ValueError):  # not on the Hub, or no connection: it is looked for here
        return None


def network_files(folder: str | Path) -> list[Path]:
    """List the files that make a local network: weights, configuration and vocabulary."""
    return sorted({file for pattern in WEIGHTS for file in Path(folder).glob(pattern)})


def fingerprint_folder(folder: str | Path) -> str:
    """Hash the content of a local model folder: weights, configuration and vocabulary.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text("{}")
        ...     fingerprint_folder(folder).partition("-")[0]
        'sha256'
    """
    digest = hashlib.sha256()
    for file in network_files(folder):
        with open(file, "rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return f"sha256-{digest.hexdigest()[:16]}"
