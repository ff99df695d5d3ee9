"""Open a checkpoint that somebody else wrote: its weights are safetensors, its code never runs, its faults are words.

Why: transformers asks on the terminal whether a repository's own code may run, and answers a pickled or torn file with
a traceback. The methods are registered here, so nothing that a repository brings has to run.
"""

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
        kind: what should be there, for the message.
        options: of the function.

    Raises:
        CausalVideoError: nothing there, or nothing that loads without running what stands in it.

    Example:
        >>> from transformers import AutoConfig
        >>> open_pretrained(AutoConfig.from_pretrained, "no/such/folder")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: checkpoint no/such/folder: found ...
    """
    if isinstance(getattr(load, "__self__", None), type) and issubclass(load.__self__, _BaseAutoModelClass):
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
