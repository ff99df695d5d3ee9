"""Load an untrusted checkpoint: safetensors only, no remote code, errors re-raised as CausalVideoError.

Why: transformers asks on the terminal whether a repository's own code may run, and answers a pickled or torn file with
a traceback. The methods are registered here, so no code of a repository has to run. The hashes of the weight files
identify a checkpoint: evaluation writes them next to its numbers, and a push compares.
"""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from hf_causal_video.models.hub_access import offline_where_unreachable
from hf_causal_video.utils.errors import CausalVideoError, require

FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, UnpicklingError, SafetensorError)


def open_pretrained(
    load: Callable[..., Any], name: str | Path, *, kind: str = "a model of this package", **options: Any
) -> Any:
    """Load a checkpoint, or one part of it.

    Args:
        load: `AutoModel.from_pretrained` or another function of a folder or Hub id.
        name: folder or Hub id.
        kind: expected kind of model, for the message.
        options: of the function.

    Raises:
        CausalVideoError: a missing checkpoint, or one that does not load without running its code.

    Example:
        >>> from transformers import AutoConfig
        >>> open_pretrained(AutoConfig.from_pretrained, "no/such/folder")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: checkpoint no/such/folder: found ...
    """
    owner = getattr(load, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, _BaseAutoModelClass):
        options["use_safetensors"] = True
    elif isinstance(load, partial):  # a pipeline
        options["model_kwargs"] = {**options.get("model_kwargs", {}), "use_safetensors": True}
    remote = not Path(name).exists()
    try:
        with offline_where_unreachable() if remote else nullcontext(True) as reachable:
            return load(str(name), trust_remote_code=False, **options)
    except CausalVideoError:
        raise
    except FAULTS as error:
        require(
            reachable,
            f"cannot reach the Hub for {name}",
            found="no connection within a few seconds, and no earlier download",
            expected="a network connection, or a local folder",
            fix="check the network, or name the folder of a checkpoint",
        )
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CausalVideoError(
            f"checkpoint {name}",
            found=lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0],
            expected=f"a folder or Hub id with {kind} in safetensors, and its processor",
            fix="check the name; scripts/train.py and save_pretrained write such a folder",
        ) from error


def weights_digest(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint, by file name; {} for a folder without any.

    Args:
        folder: a checkpoint, whole or adapters.

    Example:
        >>> weights_digest("/nowhere")
        {}
    """
    digests = {}
    for file in sorted(Path(folder).glob("*model*.safetensors")):
        with file.open("rb") as opened:
            digests[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests
