"""List the files that a push uploads, and scan them for tokens and paths of this machine.

Why: a folder of a run holds optimizer states, logs and paths; a repository needs nine files and the code to read them.
A token or a home directory in a config is read by everyone, and stays in the history for good.
"""

import json
import re
from pathlib import Path

import yaml
from safetensors import safe_open

from hf_causal_video.hub.bundle import auto_map, bundle
from hf_causal_video.hub.card import is_hub_id, repository_card
from hf_causal_video.hub.checks import Checkpoint, Fields, read_json
from hf_causal_video.hub.networks import FIELDS, carried_networks, rename_networks
from hf_causal_video.hub.results import RECIPE_FILE, is_path, read_recipe
from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.utils.checks import check_choice
from hf_causal_video.utils.errors import require

LICENSES = {  # as the Hub names them
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc0-1.0",
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"}
SOURCES = {  # fields that name a folder or a Hub id, by the file that holds them
    RECIPE_FILE: ("dataset", "annotations", "features", "text_model", "model_name_or_path"),
    "config.json": ("frame_model", "object_model", "detector"),
}
NAMES = {"_name_or_path", "name_or_path"}  # where transformers notes what a part was loaded from
SECRETS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16})\b"
)
PLACES = re.compile(
    r"(?:(?<![\w./:~-])(?:/home|/Users|/root|/tmp|/mnt|/media|/scratch|/data|/var|/opt)/[^\s\"'`]+|\b[A-Za-z]:\\+\w+)"
)

Files = dict[str, bytes | Path]


def repository_files(checkpoint: Checkpoint, repo_id: str, license_id: str) -> Files:
    """List what a push of this checkpoint uploads: content, or the file that holds it, by its name in the repository.

    Args:
        checkpoint: from `open_checkpoint`.
        repo_id: where it is going; the card names it.
        license_id: licence of the weights, as the Hub names it.

    Raises:
        CausalVideoError: an unknown licence, code that cannot travel, results of other weights.
    """
    check_choice("licence of the weights", license_id, sorted(LICENSES), fix="name one by --license")
    method = (METHODS | RELATION_METHODS)[checkpoint.method]
    classes = auto_map(method.config, method.model, method.processor, _tasks(checkpoint))
    files: Files = {path.name: path for path in checkpoint.weights}
    model_config = checkpoint.model.config
    networks = [] if checkpoint.base else carried_networks(checkpoint.folder, model_config)
    for network in networks:
        card, _ = FIELDS[network.field]
        files |= {f"{network.name}/{path.name}": path for path in network.files}
        setattr(model_config, card, {**getattr(model_config, card), network.field: network.name})
    config = checkpoint.folder
    processor = checkpoint.run
    if checkpoint.base:
        adapter = _json(config / "adapter_config.json") | {"base_model_name_or_path": checkpoint.base}
        files["adapter_config.json"] = _dump(adapter)
    else:
        fields = rename_networks(_json(config / "config.json"), networks)
        files["config.json"] = _dump(fields | {"auto_map": classes})
        for index in config.glob("model*.safetensors.index.json"):
            files[index.name] = index
    files["processor_config.json"] = _dump(
        _json(processor / "processor_config.json") | {"auto_map": {"AutoProcessor": classes["AutoProcessor"]}}
    )
    for name in TOKENIZER_FILES:
        if (processor / name).is_file():
            changed = name == "tokenizer_config.json"
            files[name] = _dump(_json(processor / name)) if changed else processor / name
    recipe = read_recipe(checkpoint.run)
    if recipe is not None:
        files[RECIPE_FILE] = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode()
    # Adapters go onto a base whose repository brings its own code; here only the processor is read from these files.
    parts = [] if checkpoint.base else {type(module) for module in checkpoint.model.modules()}
    code = bundle(method.config, method.model, method.processor, parts)
    files |= {name: text.encode() for name, text in code.items()}
    files["README.md"] = repository_card(checkpoint, repo_id, license_id).encode()
    return files


def check_private(files: Files, secrets: tuple[str | None, ...] = ()) -> None:
    """Refuse to upload a token or a path of this machine.

    Args:
        files: from `repository_files`.
        secrets: strings that must not be uploaded, such as the token in use; shorter ones than 8 letters are ignored.

    Raises:
        CausalVideoError: the file that holds one, and for a path, which; a token is never repeated.
    """
    known = [secret for secret in secrets if secret and len(secret) >= 8]
    home = str(Path.home())
    for name, content in files.items():
        if name.endswith(".safetensors"):
            assert isinstance(content, Path)
            with safe_open(content, "pt") as opened:
                text = json.dumps(opened.metadata() or {})
        else:
            raw = content.read_bytes() if isinstance(content, Path) else content
            text = raw.decode("utf-8", errors="replace")
        is_vocabulary = Path(name).name in VOCABULARIES
        is_public = not any(secret in text for secret in known) and (is_vocabulary or not SECRETS.search(text))
        fix = "remove it, and revoke the token if it was ever public"
        require(is_public, f"{name} cannot be uploaded", found="a token in it", expected="nothing secret", fix=fix)
        if is_vocabulary or name.endswith(".py"):
            place = home if len(home) > 5 and home in text else None
        else:
            match = PLACES.search(text) or (re.search(re.escape(home) + r"\b", text) if len(home) > 5 else None)
            place = match[0] if match else None
        require(
            not place,
            f"{name} cannot be uploaded",
            found=f"{place}, a path of this machine",
            expected="names that mean something elsewhere",
            fix="use Hub ids and file names in the recipe, the config and the features' provenance",
        )


def local_names(checkpoint: Checkpoint) -> dict[str, str]:
    """List uploaded fields that name a folder of this machine: nobody else can extract features or train by them.

    Args:
        checkpoint: from `open_checkpoint`.

    Returns:
        The name by its field and file, such as "features in recipe.yaml".
    """
    config = checkpoint.model.config
    made = getattr(config, "feature_provenance", None) or getattr(config, "trajectory_provenance", None) or {}
    held = {RECIPE_FILE: read_recipe(checkpoint.run) or {}, "config.json": made}
    named = {f"{field} in {file}": held[file].get(field) for file, fields in SOURCES.items() for field in fields}
    return {
        field: name
        for field, name in named.items()
        if isinstance(name, str)
        and not is_hub_id(name)
        and ("/" in name or Path(name).exists() or field.startswith(("features", "annotations")))
    }


def _tasks(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Auto classes by task under which the model answers to its name."""
    if checkpoint.is_relation:
        return ()
    choices = checkpoint.model.config.num_answers is None
    return ("AutoModelForMultipleChoice",) if choices else ("AutoModelForVisualQuestionAnswering",)


def _json(path: Path) -> Fields:
    return {name: _without_names(value) for name, value in read_json(path).items() if not _is_name(name, value)}


def _is_name(key: str, value: object) -> bool:
    """Tell whether a field notes the folder that a part was loaded from."""
    return key in NAMES and isinstance(value, str) and (is_path(value) or Path(value).exists())


def _without_names(value: object) -> object:
    """Drop notes of where a part was loaded from, if that was a folder."""
    if isinstance(value, dict):
        return {key: _without_names(part) for key, part in value.items() if not _is_name(key, part)}
    return [_without_names(part) for part in value] if isinstance(value, list) else value


def _dump(value: Fields) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
