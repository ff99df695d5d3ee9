"""`hf-causal-video evaluate`: measure a checkpoint on a benchmark, or on questions and relations of your own."""

import argparse
import json
from pathlib import Path

BENCHMARKS = (  # as in data.benchmarks, which takes torch to import
    "nextqa",
    "nextqa-atp-hard",
    "nextqa-oe",
    "nextgqa",
    "msvdqa",
    "msrvttqa",
    "causalvidqa",
    "tgifqa-action",
    "tgifqa-transition",
    "tgifqa-frameqa",
)
EXAMPLES = """examples:
  # NExT-QA, from the official csv and a feature set made by `hf-causal-video extract`
  hf-causal-video evaluate outputs/transtr --dataset nextqa --annotations nextqa/ --features features/
  # NExT-GQA: is the answer right, and right for the right seconds?
  hf-causal-video evaluate outputs/transtr --dataset nextgqa --annotations nextgqa/ --features features/
  # any public benchmark by name, from the folder of its official files
  hf-causal-video evaluate outputs/transtr --dataset msvdqa --annotations msvd_qa/ --split test --features features/
  # your own questions, see `hf-causal-video questions --help`
  hf-causal-video evaluate outputs/transtr --dataset questions.csv --split test --features features/
  # a dataset of question rows on the Hub or in a folder
  hf-causal-video evaluate outputs/transtr --dataset org/my-questions --split test --features org/my-features
  # the confounded world, whose causes are known
  hf-causal-video evaluate outputs/transtr --dataset world --split ood

relations:
  # VidVRD or VidOR: annotated videos, and their tracks (without --features: the annotated tracks)
  hf-causal-video evaluate outputs/ivrd --dataset vidvrd --annotations vidvrd/test --features tracks/
  # thirds of the mean recall and zero-shot need to know the training annotations
  hf-causal-video evaluate outputs/ivrd --dataset vidor --annotations vidor/validation --features tracks.json.gz \\
      --training-annotations vidor/training
  # the relation world, with the intervention and with it switched off
  hf-causal-video evaluate outputs/ivrd --dataset world --split balanced
  hf-causal-video evaluate outputs/ivrd --dataset world --split balanced --prior frequency
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `hf-causal-video evaluate`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", help="folder or Hub id of a trained model")
    parser.add_argument(
        "--dataset",
        required=True,
        help="world, a file or folder of your own questions, a Hub id, or with --annotations FOLDER: "
        f"{', '.join(BENCHMARKS)}",
    )
    parser.add_argument("--split", help="split of the dataset (default: test; iid for the world)")
    parser.add_argument("--spans", help="gsub json of NExT-GQA, where --dataset is a csv of NExT-QA")
    parser.add_argument("--features", help="feature set, folder or Hub id")
    parser.add_argument(
        "--output",
        help="folder for metrics.json and predictions.jsonl (default: the checkpoint's "
        "evaluation/<dataset>-<split>, or evaluation/ here for a Hub id)",
    )
    parser.add_argument("--num-frames", type=int, help="frames of each clip to take, evenly spaced (default: all)")
    parser.add_argument(
        "--span-rule",
        choices=["kept", "window", "gaussian"],
        default="kept",
        help="how kept frames become seconds (default: kept)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="questions at once (default: 32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument(
        "--annotations",
        help="folder of the official files of a benchmark; relations: folder, json or parquet of annotations; "
        "archive of JAAD",
    )
    parser.add_argument("--training-annotations", help="relations: those of the training split")
    parser.add_argument(
        "--prior", help="relations: P(z) at inference: uniform, frequency, or the share of the observed prior, 0 to 1"
    )
    parser.add_argument(
        "--world",
        type=json.loads,
        help="the world's options as JSON, such as '{\"seed\": 1}' (default: those of the recipe)",
    )


def run(args: argparse.Namespace) -> None:
    """Measure a checkpoint, of a question model or of a relation model, and print its metrics."""
    from hf_causal_video.training.evaluate import evaluate_checkpoint
    from hf_causal_video.training.recipe import recipe_world
    from hf_causal_video.training.relations.evaluate import evaluate_relations, is_relation_model
    from hf_causal_video.training.report import print_report

    base = Path(args.checkpoint) if Path(args.checkpoint).is_dir() else Path()
    is_world = args.dataset == "world"
    name = Path(args.dataset).name.split(".")[0] if Path(args.dataset).is_file() else Path(args.dataset).name
    args.split = args.split or ("iid" if is_world else "test")
    output = Path(args.output) if args.output else base / "evaluation" / f"{name}-{args.split}"
    world = recipe_world(args.checkpoint) if is_world and args.world is None else args.world
    if is_relation_model(args.checkpoint):
        if args.prior and not args.output:
            output = output.with_name(f"{output.name}-{args.prior}")
        report = evaluate_relations(
            args.checkpoint,
            args.dataset,
            args.split,
            annotations=args.annotations,
            tracks=args.features,
            training_annotations=args.training_annotations,
            output=output,
            world=world,
            prior=args.prior,
            device=args.device,
        )
        tracks = f", tracks: {report['tracks']}" if report["tracks"] else ""
        title = f"{args.checkpoint} on {args.dataset}, {args.split}{tracks}: {report['records']} records"
        print_report(title, report["metrics"], output)
        return
    report = evaluate_checkpoint(
        args.checkpoint,
        args.dataset,
        args.split,
        features=args.features,
        output=output,
        num_frames=args.num_frames,
        world=world,
        span_rule=args.span_rule,
        batch_size=args.batch_size,
        annotations=args.annotations,
        spans=args.spans,
        device=args.device,
    )
    title = f"{args.checkpoint} on {args.dataset}, {args.split}: {report['questions']} questions"
    print_report(title, report["metrics"], output)
