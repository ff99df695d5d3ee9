"""`hf-causal-video stress`: test whether answers of a checkpoint depend on the clip and on its evidence."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_causal_video.cli.options import FONT, argument, json_mapping, option
from hf_causal_video.cli.pictures import check_picture, font_path, write_picture
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import require

if TYPE_CHECKING:
    from torch.nn import Module

    from hf_causal_video.stress.report import Report

TESTS = (  # as in stress.conditions, which takes torch to import
    "whole",
    "blind",
    "shuffled",
    "first_frame",
    "environment_swapped",
    "evidence_only",
    "evidence_removed",
    "window_only",
    "window_removed",
    "options_permuted",
    "question_replaced",
)
EXAMPLES = """examples:
  hf-causal-video stress outputs/transtr --dataset questions.csv --features features/     # your own questions
  hf-causal-video stress outputs/igv --dataset nextgqa --annotations nextgqa/ --features features/
  hf-causal-video stress outputs/eigv --dataset world --split ood                  # the world it was trained in
  hf-causal-video stress outputs/backbone --dataset world --evidence truth         # a model without evidence

The run is resumable: started again, it goes on from questions.jsonl in its folder. From Python, any callable
(frames or features, question, choices) -> scores: hf_causal_video.stress.stress_test.
"""


@dataclass(kw_only=True)
class Options:
    """Test whether answers depend on the clip and on the evidence."""

    checkpoint: str = argument("folder or Hub id of a trained model")
    dataset: str = option("world, your own questions, or a benchmark, as in `evaluate`")
    split: str | None = option("split of the dataset (default: test; iid for the world)", None)
    spans: str | None = option("gsub json of NExT-GQA, where --dataset is a csv of NExT-QA", None)
    annotations: str | None = option("folder of the official files of a benchmark", None)
    features: str | None = option("feature set, folder or Hub id", None)
    num_frames: int | None = option("frames of each clip to take, evenly spaced (default: all)", None)
    world: dict[str, object] | None = option(
        "options of the confounded world as JSON (default: as the checkpoint's recipe.yaml says)",
        None,
        type=json_mapping,
    )
    evidence: Literal["own", "truth", "none"] = option("the model's own evidence, the annotated spans, or none", "own")
    environment: Literal["evidence", "truth"] | None = option(
        "what counts as environment lies outside the model's evidence or outside the annotated spans "
        "(default: the spans, where all questions have them)",
        None,
    )
    tests: list[str] | None = option(f"tests to run (default: all possible): {', '.join(TESTS)}", None, metavar="TEST")
    limit: int | None = option("ask only the first questions of the split", None)
    seed: int = option("of what is drawn at random", 0)
    batch_size: int = option("questions at once", 32)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    font: Path | None = option(FONT, None)
    output: Path | None = option(
        "folder for questions.jsonl, stress.json, stress.png and model_index.json "
        "(default: the checkpoint's stress/<dataset>-<split>, or stress/ here for a Hub id)",
        None,
    )


def run(options: Options) -> None:
    """Body of `hf-causal-video stress`."""
    from hf_causal_video.stress.picture import draw_stress
    from hf_causal_video.stress.report import stress_table
    from hf_causal_video.training.recipe import recipe_world

    check_picture(Path("stress.png"), options.font)
    base = Path(options.checkpoint) if Path(options.checkpoint).is_dir() else Path()
    split = options.split or ("iid" if options.dataset == "world" else "test")
    suffix = "" if options.evidence == "own" else f"-{options.evidence}"
    output = options.output or base / "stress" / f"{Path(options.dataset).name}-{split}{suffix}"
    world = options.world
    if world is None and options.dataset == "world":
        world = recipe_world(options.checkpoint)
    report = stress_checkpoint(
        options.checkpoint,
        options.dataset,
        split,
        spans=options.spans,
        annotations=options.annotations,
        features=options.features,
        num_frames=options.num_frames,
        world=world,
        limit=options.limit,
        device=options.device,
        output=output,
        evidence=options.evidence,
        environment=options.environment,
        tests=options.tests,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    title = f"{options.checkpoint} on {options.dataset}, {split}"
    print(f"{title}: {report['questions']} questions about {report['videos']} videos, measured here\n")
    print(stress_table(report))
    write_picture(output / "stress.png", draw_stress(report, title, font_path=font_path(options.font)))
    print(f"\nwritten: questions.jsonl, stress.json, stress.png, model_index.json in {output}")


def stress_checkpoint(
    checkpoint: str | Path,
    dataset: str,
    split: str = "test",
    *,
    output: str | Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    world: dict[str, object] | None = None,
    spans: str | Path | None = None,
    annotations: str | Path | None = None,
    features: str | Path | None = None,
    num_frames: int | None = None,
    **options: Any,
) -> "Report":
    """Stress-test a checkpoint on a benchmark.

    Args:
        checkpoint, dataset, split, spans, annotations, features, num_frames, world: as of
            `evaluate_checkpoint`.
        output: folder for `questions.jsonl` (a run that was cut off goes on from it), `stress.json` and
            `model_index.json` (entries of a model card's model-index); nothing is written without it.
        limit: ask only the first questions.
        device: where the model runs.
        options: of `stress_test`: evidence, environment, tests, seed, batch_size, progress.

    Raises:
        CausalVideoError: as `evaluate_checkpoint` and `stress_test`.
    """
    from transformers import AutoConfig, AutoModel, AutoProcessor

    from hf_causal_video.models import RELATION_METHODS
    from hf_causal_video.models.loading import open_pretrained
    from hf_causal_video.stress.clips import clip_of
    from hf_causal_video.stress.model import VideoQAAnswerer
    from hf_causal_video.stress.report import card_results, save_report
    from hf_causal_video.stress.runner import stress_test
    from hf_causal_video.training.evaluate import load_data

    require(
        open_pretrained(AutoConfig.from_pretrained, checkpoint).model_type not in RELATION_METHODS,
        "wrong kind of model",
        found=f"a relation model in {checkpoint}",
        expected="a question model",
        fix="relation models are measured by `hf-causal-video evaluate`",
    )
    if limit is not None:
        check_whole("--limit (limit)", limit, fix="raise --limit")
    model = open_pretrained(AutoModel.from_pretrained, checkpoint).to(device)
    processor = open_pretrained(AutoProcessor.from_pretrained, checkpoint)
    words = getattr(processor, "answer_vocabulary", None)
    data = load_data(dataset, split, features, num_frames, world, annotations, words, spans)
    data.store.check(model.config.feature_provenance)
    if limit is not None:
        data.questions = data.questions.select(range(min(limit, len(data.questions))))
    answerer = VideoQAAnswerer(model, processor)
    if options.get("evidence", "own") == "own":  # a model without evidence is refused before anything is asked
        first = data[0]
        answerer.evidence([(clip_of(first), first["question"], list(first["choices"]) or None)])
    report = stress_test(
        answerer,
        data,
        path=None if output is None else Path(output) / "questions.jsonl",
        name=str(checkpoint),
        identity=f"{_weights(model)}, {dataset}, {split}, {num_frames} frames, {json.dumps(world, sort_keys=True)}",
        **options,
    )
    report["mark"] = "measured here"
    if output is not None:
        save_report(report, Path(output) / "stress.json")
        save_report({"results": card_results(report, dataset, split)}, Path(output) / "model_index.json")
    return report


def _weights(model: "Module") -> str:
    """A short name for exactly these weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
