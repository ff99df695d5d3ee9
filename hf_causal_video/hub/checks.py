"""Check a checkpoint before it is uploaded: it loads whole, its parts belong together, its weights are finite.

Why: a repository is read by strangers who cannot ask. A missing key, a NaN, or a processor of another vocabulary gives
them wrong numbers and no error.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from hf_causal_video.models import METHODS, RELATION_METHODS, VideoQAProcessor, VideoRelationProcessor
from hf_causal_video.utils.checks import check_choice, check_fields, check_file
from hf_causal_video.utils.errors import CausalVideoError, require

WEIGHTS = "model*.safetensors"
ADAPTER = "adapter_model.safetensors"
OTHERS = "push a model of another package with its own library"
Fields = dict[str, object]  # of a JSON or YAML file
Processor = TypeVar("Processor", VideoQAProcessor, VideoRelationProcessor)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint.

    Args:
        folder: of the checkpoint.
        method: its name in the tables of methods.
        model, processor: as loaded.
        run: folder of the training run, whose recipe and results belong to it; the folder itself, or for adapters the
            folder that holds theirs.
        base: Hub id of the model that adapters go onto; None for a whole model.
    """

    folder: Path
    method: str
    model: PreTrainedModel
    processor: VideoQAProcessor | VideoRelationProcessor
    run: Path
    base: str | None = None

    @property
    def is_relation(self) -> bool:
        """True for a model that detects relations, False for one that answers questions."""
        return self.method in RELATION_METHODS

    @property
    def weights(self) -> list[Path]:
        """Files of the weights that are uploaded."""
        return sorted(self.folder.glob(ADAPTER if self.base else WEIGHTS))


def read_json(path: Path) -> Fields:
    """Read the fields of a JSON file."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CausalVideoError(
            f"{path} cannot be read", found=str(error), expected="JSON", fix="write the file again"
        ) from error
    return check_fields(f"file {path}", read, (), fix="write it again")


def open_checkpoint(folder: str | Path, base: str | None = None, token: str | None = None) -> Checkpoint:
    """Load a checkpoint from a folder and refuse it unless everything in it fits together.

    Args:
        folder: what `save_pretrained` or a training run wrote: a whole model with its processor, or adapters.
        base: Hub id of the model the adapters go onto; by default the one they name.
        token: of the Hub, to read that base; the one you logged in with if None.

    Raises:
        CausalVideoError: no checkpoint, weights that are missing, unknown, torn or not finite, a config or a processor
            of another model, adapters without a base on the Hub.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").is_file():
        return _open_adapter(folder, base, token)
    fix = "leave --base out, or name the folder of the adapters"
    expected = "a folder with adapter_config.json"
    require(base is None, f"{folder} holds no adapters", found="--base with a whole model", expected=expected, fix=fix)
    method = _method(folder)
    classes = (METHODS | RELATION_METHODS)[method]
    model_class = classes.model
    _check_weight_files(folder, WEIGHTS)
    config = _loaded(folder, "config.json", lambda: classes.config.from_pretrained(folder))
    require(
        model_class.__name__ in (config.architectures or []),
        f"config.json of {folder}",
        found=f"architectures {config.architectures}",
        expected=model_class.__name__,
        fix="save the model with save_pretrained",
    )
    model, report = _loaded(
        folder,
        "the weights",
        lambda: model_class.from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
        ),
    )
    mismatched = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"], *mismatched})
    require(
        not wrong,
        f"the weights of {folder} do not fit its config",
        found=lambda: f"missing, unknown or of another shape: {wrong[:8]}",
        expected="exactly the weights of the config's network",
        fix="save model and config together",
    )
    _check_finite(folder, dict(model.state_dict()))
    processor = _processor(folder, classes.processor)
    checkpoint = Checkpoint(folder, method, model.eval(), processor, folder)
    _check_match(checkpoint)
    return checkpoint


def _open_adapter(folder: Path, base: str | None, token: str | None) -> Checkpoint:
    """Load adapters: they name a base on the Hub, fit it, and have their processor with them or one folder up."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModel

    _check_weight_files(folder, ADAPTER)
    repository = base or str(read_json(folder / "adapter_config.json").get("base_model_name_or_path"))
    require(
        not Path(repository).exists() and repository.count("/") == 1,
        f"the adapters in {folder}",
        found=f"base {repository!r}",
        expected="the Hub id of the model they go onto",
        fix="push the base, then name it: --base org/base; or push the run's own folder, where they are merged",
    )
    bare = _loaded(
        folder,
        f"the base {repository}",
        lambda: AutoModel.from_pretrained(repository, token=token, trust_remote_code=False),
    )
    fix = "name the base that the adapters were trained on"
    check_choice(f"model_type of the base {repository}", bare.config.model_type, METHODS | RELATION_METHODS, fix=fix)
    wrapped = _loaded(folder, "the adapters", lambda: PeftModel.from_pretrained(bare, folder))
    stored = load_file(folder / ADAPTER)
    wanted = get_peft_model_state_dict(wrapped)
    wrong = sorted(set(stored) ^ set(wanted))
    require(
        not wrong,
        f"the adapters in {folder} do not fit {repository}",
        found=lambda: f"missing or unknown: {wrong[:8]}",
        expected="the adapters of that model",
        fix="name the base that they were trained on",
    )
    _check_finite(folder, stored)
    run = folder if (folder / "processor_config.json").is_file() else folder.parent
    processor_class = (METHODS | RELATION_METHODS)[bare.config.model_type].processor
    processor = _processor(run, processor_class)
    model = cast(PreTrainedModel, wrapped.get_base_model())
    checkpoint = Checkpoint(folder, bare.config.model_type, model.eval(), processor, run, repository)
    _check_match(checkpoint)
    return checkpoint


def _method(folder: Path) -> str:
    fix = "name the --output_dir of a training run, or save both with save_pretrained"
    method = read_json(check_file("checkpoint to push", folder / "config.json", fix=fix)).get("model_type")
    return str(check_choice(f"model_type of {folder}", method, METHODS | RELATION_METHODS, fix=OTHERS))


def _check_weight_files(folder: Path, pattern: str) -> None:
    files = sorted(folder.glob(pattern))
    if not files:
        names = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise CausalVideoError(
            f"no weights in {folder}",
            found=names[:200],
            expected=pattern,
            fix="save with save_pretrained; pickled weights are not pushed",
        )
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise CausalVideoError(
                f"{file} cannot be read", found=str(error), expected="a whole safetensors file", fix="save it again"
            ) from error


def _processor(folder: Path, processor_class: type[Processor]) -> Processor:
    fix = "save it with the model: processor.save_pretrained"
    check_file("processor", folder / "processor_config.json", fix=fix)
    return _loaded(folder, "the processor", lambda: processor_class.from_pretrained(folder, local_files_only=True))


def _check_finite(folder: Path, state: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    problem = f"NaN or infinity in {', '.join(bad[:5])}"
    fix = "train again; this run diverged"
    require(not bad, f"the weights of {folder}", found=problem, expected="finite weights", fix=fix)


def _check_match(checkpoint: Checkpoint) -> None:
    """Refuse a processor whose tokens, answers or classes are not those of the model."""
    config = checkpoint.model.config
    processor = checkpoint.processor
    pairs: list[tuple[str, int | None, list[object]]] = []
    if isinstance(processor, VideoRelationProcessor):
        pairs += [("object classes", len(processor.object_classes), [config.num_object_classes])]
        pairs += [("predicates", len(processor.predicates), [config.num_predicates])]
    else:
        known = processor.answer_vocabulary
        size = config.num_answers
        words = None if known is None else len(known)  # a released head has one class more: any other answer
        pairs += [("answers in the vocabulary", words, [None] if size is None else [size, size - 1])]
        text = getattr(config, "text_config", None)
        if text is not None and len(processor.tokenizer) > text.vocab_size:
            pairs += [("tokens", len(processor.tokenizer), [f"at most {text.vocab_size}"])]
    for what, count, expected in pairs:
        require(
            count in expected,
            f"config and processor of {checkpoint.run} are of two models",
            found=f"{count} {what} in the processor",
            expected=" or ".join(map(str, expected)),
            fix="save the processor that the model was trained with",
        )


def _loaded(folder: Path, what: str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except CausalVideoError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CausalVideoError(
            f"{what} of {folder} cannot be loaded",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected="what save_pretrained wrote",
            fix="save model and processor together into one folder",
        ) from error
