"""From a file of the original authors to a model folder: tensors are read, code never runs, no folder is half written.

Why: a `torch.save` file is a pickle, and a pickle can run anything when it is opened. Here only tensors come out of
it, and whatever is not exactly the released layout is refused before a byte is written.
"""

import argparse
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import ProcessorMixin

from hf_causal_video.hub.convert.conversion import VARIANTS, convert_official_checkpoint
from hf_causal_video.models import METHODS
from hf_causal_video.utils.checks import check_file
from hf_causal_video.utils.errors import CausalVideoError, parse_arguments, require, run_command
from hf_causal_video.utils.files import whole_folder

# errors of torch's reader for a file of another kind, or one that is cut off
DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    zipfile.BadZipFile,
)
EXAMPLES = f"""examples:
  python scripts/convert_original_checkpoint.py transtr.pth --method transtr --variant next \\
      --tokenizer microsoft/deberta-base --output converted/transtr-nextqa
  python scripts/convert_original_checkpoint.py best.pth --method transtr --variant msvd \\
      --tokenizer microsoft/deberta-base --answers ans_word.json --output converted/transtr-msvdqa

variants: {"; ".join(f"{method}: {', '.join(names)}" for method, names in VARIANTS.items())}
"""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a `torch.save` file that holds a flat dictionary of finite, dense tensors and nothing else.

    Args:
        path: the file.

    Raises:
        CausalVideoError: no such file, a file that is cut off or no checkpoint, anything in it that is not a tensor
            (such things are never unpickled), or a tensor with NaN or infinity.

    Example:
        >>> read_state_dict("no/such.pth")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: ...
    """
    path = check_file("checkpoint", path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CausalVideoError(
            f"{path} holds more than tensors, or was not written by torch",
            found=str(error).splitlines()[0],
            expected="a dictionary of tensors, as torch.save(model.state_dict(), path) writes it",
            fix="do not open it in another way unless you trust its source: a pickle can run code",
        ) from error
    except DAMAGE as error:
        raise CausalVideoError(
            f"{path} cannot be read",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a whole torch.save file",
            fix="get the file again",
        ) from error
    if not isinstance(state, Mapping) or not state:
        raise _not_tensors(path, f"{type(state).__name__} of length {len(state) if hasattr(state, '__len__') else 1}")
    if wrong := [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]:
        raise _not_tensors(path, f"{len(wrong)} other entries: {wrong[:5]}")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise _not_tensors(path, f"{key} is sparse or quantized")
        require(
            not tensor.is_floating_point() or torch.isfinite(tensor).all(),
            f"{key} in {path} is not finite",
            found="NaN or infinity",
            expected="finite weights",
            fix="get another checkpoint of this run: this one answers nothing",
        )
    return dict(state)


def convert_file(
    path: str | Path,
    method: str,
    variant: str,
    output: str | Path,
    tokenizer: str | None = None,
    answers: str | Path | None = None,
    config_overrides: Mapping[str, object] | None = None,
) -> Path:
    """Convert an original checkpoint file into a folder that `AutoModel.from_pretrained` loads.

    Args:
        path: the `torch.save` file.
        method, variant, config_overrides: see `convert_official_checkpoint`.
        output: the folder, which must be absent or empty.
        tokenizer: Hub id or folder of the tokenizer the model was trained with; the folder then holds a processor too.
        answers: JSON list of the answers of an open-ended model, in the order of their indices.

    Raises:
        CausalVideoError: a file that is not such a checkpoint, an output that exists, or answers without a tokenizer,
            or more answers than the model has.
    """
    output = Path(output)
    is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    expected = "no folder, or an empty one"
    require(is_free, "the output is there already", found=output, expected=expected, fix="name another")
    what = "answers belong to a processor"
    has_home = answers is None or tokenizer is not None
    require(has_home, what, found="no tokenizer", expected="a tokenizer", fix="add --tokenizer")
    model = convert_official_checkpoint(read_state_dict(path), method, variant, config_overrides)
    with whole_folder(output) as partial:
        model.save_pretrained(partial)
        if tokenizer is not None:
            _processor(method, model.config.num_answers, tokenizer, answers).save_pretrained(partial)
    return output


def _processor(method: str, num_answers: int | None, tokenizer: str, answers: str | Path | None) -> ProcessorMixin:
    from transformers import AutoTokenizer

    words = None
    if answers is not None:
        try:
            words = json.loads(Path(answers).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CausalVideoError(
                f"{answers} cannot be read", found=error, expected="a JSON list of texts", fix="check the file"
            ) from error
        good = isinstance(words, list) and all(isinstance(word, str) for word in words)
        require(
            good and num_answers is not None and 0 < len(words) <= num_answers,
            f"{answers} does not fit the model",
            found=f"{len(words)} entries" if good else "no list of texts",
            expected=f"at most {num_answers} texts" if num_answers else "no answers: the model is multiple choice",
            fix="give the list of answers that the model was trained with",
        )
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CausalVideoError(
            f"no tokenizer at {tokenizer}",
            found=str(error).splitlines()[0],
            expected="a Hub id or a folder",
            fix="check the name, or the connection",
        ) from error
    return METHODS[method].processor(loaded, answer_vocabulary=words, choice_template="official")


def command(argv: Sequence[str] | None = None) -> int:
    """Run the conversion from the shell; a bad input ends with its message and exit code 2."""
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of the original code into a folder of this package.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the file that the original code wrote with torch.save")
    parser.add_argument("--method", required=True, choices=sorted(VARIANTS))
    parser.add_argument("--variant", required=True, help="which copy of the original code wrote it, see below")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write; absent or empty")
    parser.add_argument("--tokenizer", metavar="ID", help="tokenizer of the text encoder, to write a processor too")
    parser.add_argument("--answers", metavar="JSON", help="list of the answers of an open-ended model")
    parser.add_argument(
        "--config-overrides", type=json.loads, metavar="JSON", help="config fields that the tensors cannot tell"
    )
    args = parse_arguments(parser, argv)

    def run() -> None:
        folder = convert_file(
            args.file, args.method, args.variant, args.output, args.tokenizer, args.answers, args.config_overrides
        )
        print(f"written: {folder}")

    return run_command("error", run)


def _not_tensors(path: Path, found: str) -> CausalVideoError:
    return CausalVideoError(
        f"{path} is not a flat dictionary of tensors",
        found=found,
        expected="name to tensor, as torch.save(model.state_dict(), path) writes it",
        fix="save the model's state_dict alone",
    )
