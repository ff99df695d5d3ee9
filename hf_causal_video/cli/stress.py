"""`hf-causal-video stress`: test whether answers of a checkpoint depend on the clip and on its evidence."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_causal_video.cli.pictures import add_font_argument, check_picture, font_path, write_picture
from hf_causal_video.stress.clips import clip_of
from hf_causal_video.stress.report import Report, card_results, save_report, stress_table
from hf_causal_video.stress.runner import TESTS, stress_test
from hf_causal_video.training.recipe import recipe_world
from hf_causal_video.utils.checks import check_whole
from hf_causal_video.utils.errors import CausalVideoError, require

if TYPE_CHECKING:
    from torch import nn

EXAMPLES = """examples:
  hf-causal-video stress outputs/transtr --dataset questions.csv --features features/     # your own questions
  hf-causal-video stress outputs/igv --dataset nextgqa --annotations nextgqa/ --features features/
  hf-causal-video stress outputs/eigv --dataset world --split ood                  # the world it was trained in
  hf-causal-video stress outputs/backbone --dataset world --evidence truth         # a model without evidence

The run is resumable: started again, it goes on from questions.jsonl in its folder. From Python, any callable
(frames or features, question, choices) -> scores: hf_causal_video.stress.stress_test.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `stress`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("checkpoint", help="folder or Hub id of a trained model")
    add("--dataset", required=True, help="world, your own questions, or a benchmark, as in `evaluate`")
    add("--split", default=None, help="split of the dataset (default: test; iid for the world)")
    add("--spans", help="gsub json of NExT-GQA, where --dataset is a csv of NExT-QA")
    add("--annotations", help="folder of the official files of a benchmark")
    add("--features", help="feature set, folder or Hub id")
    add("--num-frames", type=int, help="frames of each clip to take, evenly spaced (default: all)")
    add("--world", help="options of the confounded world as JSON (default: as the checkpoint's recipe.yaml says)")
    add(
        "--evidence",
        choices=["own", "truth", "none"],
        default="own",
        help="the model's own evidence, the annotated spans, or none (default: own)",
    )
    add(
        "--environment",
        choices=["evidence", "truth"],
        help="what counts as environment lies outside the model's evidence or outside the annotated spans "
        "(default: the spans, where all questions have them)",
    )
    add("--tests", nargs="+", metavar="TEST", help=f"tests to run (default: all possible): {', '.join(TESTS)}")
    add("--limit", type=int, help="ask only the first questions of the split")
    add("--seed", type=int, default=0)
    add("--batch-size", type=int, default=32)
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_font_argument(parser)
    add(
        "--output",
        type=Path,
        help="folder for questions.jsonl, stress.json, stress.png and model_index.json "
        "(default: the checkpoint's stress/<dataset>-<split>, or stress/ here for a Hub id)",
    )


def run(args: argparse.Namespace) -> None:
    """Body of `hf-causal-video stress`."""
    from hf_causal_video.stress.picture import draw_stress

    check_picture(args, Path("stress.png"))
    base = Path(args.checkpoint) if Path(args.checkpoint).is_dir() else Path()
    split = args.split or ("iid" if args.dataset == "world" else "test")
    suffix = "" if args.evidence == "own" else f"-{args.evidence}"
    output = args.output or base / "stress" / f"{Path(args.dataset).name}-{split}{suffix}"
    report = stress_checkpoint(
        args.checkpoint,
        args.dataset,
        split,
        spans=args.spans,
        annotations=args.annotations,
        features=args.features,
        num_frames=args.num_frames,
        world=_world(args),
        limit=args.limit,
        device=args.device,
        output=output,
        evidence=args.evidence,
        environment=args.environment,
        tests=args.tests,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    title = f"{args.checkpoint} on {args.dataset}, {split}"
    print(f"{title}: {report['questions']} questions about {report['videos']} videos, measured here\n")
    print(stress_table(report))
    write_picture(output / "stress.png", draw_stress(report, title, font_path=font_path(args)))
    print(f"\nwritten: questions.jsonl, stress.json, stress.png, model_index.json in {output}")


def stress_checkpoint(
    checkpoint: str | Path,
    dataset: str,
    split: str = "test",
    *,
    output: str | Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    world: dict[str, Any] | None = None,
    spans: str | Path | None = None,
    annotations: str | Path | None = None,
    features: str | Path | None = None,
    num_frames: int | None = None,
    **options: Any,
) -> Report:
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
    from hf_causal_video.stress.model import VideoQAAnswerer
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


def _weights(model: "nn.Module") -> str:
    """A short name for exactly these weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _world(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the options passed, or those of the checkpoint's recipe, or None."""
    if args.world is not None:
        try:
            return json.loads(args.world)
        except ValueError as error:
            raise CausalVideoError(
                "--world", found=args.world, expected='JSON such as {"study": "grounding"}', fix="mind the quotes"
            ) from error
    return recipe_world(args.checkpoint) if args.dataset == "world" else None
