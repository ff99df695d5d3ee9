"""The README of a pushed checkpoint, written from its config, its recipe and what was measured on it.

Why: a typed card ages with the first retraining. Here each line is read from a file that the run wrote, and every
number carries its mark.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedConfig

from hf_causal_video.hub.checks import Checkpoint, Fields
from hf_causal_video.hub.results import Result, RunCard, dataset_name, read_recipe, read_results, read_run
from hf_causal_video.models import METHODS, RELATION_METHODS
from hf_causal_video.utils.version import __version__

METHOD_FOLDERS = Path(__file__).resolve().parents[1] / "models"
METRIC_TYPES = {"Acc": "accuracy", "accuracy": "accuracy"}  # how the Hub calls them
HOUSEKEEPING = {"text_config", "feature_provenance", "trajectory_provenance"}  # listed elsewhere in a card
LIBRARY = "hf-causal-video"


def repository_card(checkpoint: Checkpoint, repo_id: str, license_id: str) -> str:
    """Write the card of a checkpoint, metadata and text.

    Args:
        checkpoint: from `open_checkpoint`.
        repo_id: where it is going.
        license_id: licence of the weights, as the Hub names it.

    Raises:
        CausalVideoError: results of other weights.
    """
    results = read_results(checkpoint.run)
    run = read_run(checkpoint.run)
    recipe = read_recipe(checkpoint.run)
    metadata = _metadata(checkpoint, repo_id, license_id, results, run)
    parts = [
        f"# {repo_id.split('/')[-1]}",
        introduction(checkpoint.method),
        _load(checkpoint, repo_id),
        _measured(results, run),
        architecture(checkpoint.model.config, checkpoint.model.num_parameters()),
        _provenance(checkpoint.model.config),
        _training(run),
        recipe_text(recipe),
        f"*Written by hf-causal-video {__version__} from the checkpoint's own files.*",
    ]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def introduction(method: str) -> str:
    """Introduce a method: the paper and the first paragraph of its own README; "" if it has none.

    A link to another file of the package leads nowhere from a card, and keeps its words alone.
    """
    known = METHODS | RELATION_METHODS
    folder = known[method].folder if method in known else method
    path = METHOD_FOLDERS / folder / "README.md"
    blocks = path.read_text(encoding="utf-8").split("\n\n") if path.is_file() else []
    text = "\n\n".join([block for block in blocks if block[0] not in "#`|-"][:2]).strip()
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


def architecture(config: PreTrainedConfig, parameters: int) -> str:
    """A section on the network: its size, its text encoder, and every field of its config.

    Args:
        config: of the model.
        parameters: how many weights it has.
    """
    text = getattr(config, "text_config", None)
    alone = " without a text encoder" if hasattr(config, "text_config") and text is None else ""
    rows = [(f"parameters{alone}", f"{parameters:,}")]
    if text is not None:
        layers = getattr(text, "num_hidden_layers", "?")
        rows.append(("text encoder", f"{text.model_type}, {layers} layers of width {text.hidden_size}"))
    names = [name for name in type(config).__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]
    rows += [(f"`{name}`", f"`{getattr(config, name)}`") for name in names if name not in HOUSEKEEPING]
    return f"## Architecture\n\n{type(config).__name__}\n\n" + table(("field", "value"), rows)


def recipe_text(recipe: Fields | None) -> str:
    """A section with the recipe, as YAML that a training run reads."""
    if recipe is None:
        return "## Recipe\n\nNone was kept with these weights."
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    command = "`accelerate launch scripts/train.py --config recipe.yaml --output_dir ...`"
    return f"## Recipe\n\n{command}\n\n```yaml\n{text}```"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def is_hub_id(name: str) -> bool:
    """Tell whether a name is that of a repository, and not of a local folder."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not Path(name).exists()


def _metadata(
    checkpoint: Checkpoint, repo_id: str, license_id: str, results: list[Result], run: RunCard
) -> ModelCardData:
    task = _task(checkpoint)
    encoder = str(run.get("text_encoder"))
    dataset = dataset_name(run)
    evaluated = [
        EvalResult(
            task_type=task,
            dataset_type=one.dataset,
            dataset_name=one.dataset,
            dataset_split=one.split,
            metric_type=METRIC_TYPES.get(one.metric, one.metric),
            metric_name=one.metric,
            metric_value=round(one.value, 4),
        )
        for one in results
    ]
    return ModelCardData(
        license=license_id,
        library_name="peft" if checkpoint.base else "transformers",
        pipeline_tag=None if checkpoint.is_relation else "visual-question-answering",
        tags=[LIBRARY, task, checkpoint.method, "causality", "custom_code"],
        base_model=checkpoint.base or (encoder if is_hub_id(encoder) else None),
        datasets=[dataset] if is_hub_id(dataset) else None,
        model_name=repo_id.split("/")[-1] if evaluated else None,
        eval_results=evaluated or None,
    )


def _load(checkpoint: Checkpoint, repo_id: str) -> str:
    alone = "transformers, torch and peft" if checkpoint.base else "transformers and torch"
    lines = [
        f"import hf_causal_video                      # or, with {alone} alone: trust_remote_code=True",
        "from transformers import AutoModel, AutoProcessor" + ("" if checkpoint.base else ", pipeline"),
        "",
        f'model = AutoModel.from_pretrained("{repo_id}")',
        f'processor = AutoProcessor.from_pretrained("{repo_id}")',
    ]
    if not checkpoint.base:
        question = 'question="...", choices=["...", "..."]' if _has_choices(checkpoint) else 'question="..."'
        clip = '"clip.mp4"' if checkpoint.is_relation else f'"clip.mp4", {question}'
        lines.append(f'pipeline("{_task(checkpoint)}", model="{repo_id}")({clip})')
    about = (
        "Adapters of the text encoder and all of the method's own weights; the line that loads the model follows "
        f"them to their base [{checkpoint.base}](https://huggingface.co/{checkpoint.base}).\n\n"
        if checkpoint.base
        else ""
    )
    return f"## Load\n\n{about}```python\n" + "\n".join(lines) + "\n```"


def _task(checkpoint: Checkpoint) -> str:
    return "video-relation-detection" if checkpoint.is_relation else "video-question-answering"


def _has_choices(checkpoint: Checkpoint) -> bool:
    return not checkpoint.is_relation and checkpoint.model.config.num_answers is None


def _measured(results: list[Result], run: RunCard) -> str:
    if not results:
        return "## Measured here\n\nNothing yet."
    rows = [
        (one.dataset, one.split + (" (chosen by it)" if one.chosen else ""), one.metric, f"{one.value:.2f}")
        for one in results
    ]
    seed = f"Seed {run['seed']}; checkpoint chosen by {run['chosen_by']}. " if run else ""
    sure = all(one.bound for one in results)
    bound = "" if sure else "The reports name the folder and are younger than the weights, but do not hold their hash."
    note = (seed + bound).strip()
    return "## Measured here\n\n" + table(("dataset", "split", "metric", "%"), rows) + (f"\n\n{note}" if note else "")


def _provenance(config: PreTrainedConfig) -> str:
    for name, what in (("feature_provenance", "features"), ("trajectory_provenance", "tracks")):
        made = getattr(config, name, None)
        if made:
            rows = [(key, f"`{value}`") for key, value in made.items() if value not in (None, {}, "")]
            return f"## What it reads\n\nOther {what} than these are refused.\n\n" + table(("field", "value"), rows)
    return ""


def _training(run: RunCard) -> str:
    if not run:
        return ""
    training = run.get("training", {})
    versions = run.get("versions", {})
    rows = [
        (name.replace("_", " "), str(run[name]))
        for name in ("hardware", "precision", "matmul_precision", "seed")
        if run.get(name) is not None
    ]
    rows += [(name.replace("_", " "), str(value)) for name, value in training.items() if value is not None]
    rows += [("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))]
    return "## Training\n\n" + table(("", ""), rows)
