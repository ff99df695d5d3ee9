"""`hf-causal-video evaluate`: measure a checkpoint on a benchmark, or on questions and relations of your own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_causal_video.cli.options import argument, json_mapping, option

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


@dataclass(kw_only=True)
class Options:
    """Measure a checkpoint on a benchmark."""

    checkpoint: str = argument("folder or Hub id of a trained model")
    dataset: str = option(
        "world, a file or folder of your own questions, a Hub id, or with --annotations FOLDER: "
        + ", ".join(BENCHMARKS)
    )
    split: str | None = option("split of the dataset (default: test; iid for the world)", None)
    spans: str | None = option("gsub json of NExT-GQA, where --dataset is a csv of NExT-QA", None)
    features: str | None = option("feature set, folder or Hub id", None)
    output: str | None = option(
        "folder for metrics.json and predictions.jsonl (default: the checkpoint's evaluation/<dataset>-<split>, "
        "or evaluation/ here for a Hub id)",
        None,
    )
    num_frames: int | None = option("frames of each clip to take, evenly spaced (default: all)", None)
    span_rule: Literal["kept", "window", "gaussian"] = option("how kept frames become seconds", "kept")
    batch_size: int = option("questions at once", 32)
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    matmul_precision: Literal["highest", "high", "medium"] = option(
        "float32 matrix products: highest (float32), high (TF32 on a GPU), medium (bfloat16 on a CPU with AMX)",
        "highest",
    )
    annotations: str | None = option(
        "folder of the official files of a benchmark; relations: folder, json or parquet of annotations; "
        "archive of JAAD",
        None,
    )
    training_annotations: str | None = option("relations: those of the training split", None)
    prior: str | None = option(
        "relations: P(z) at inference: uniform, frequency, or the share of the observed prior, 0 to 1", None
    )
    world: dict[str, object] | None = option(
        "the world's options as JSON, such as '{\"seed\": 1}' (default: those of the recipe)", None, type=json_mapping
    )


def run(options: Options) -> None:
    """Measure a checkpoint, of a question model or of a relation model, and print its metrics."""
    from hf_causal_video.training.evaluate import evaluate_checkpoint
    from hf_causal_video.training.recipe import recipe_world
    from hf_causal_video.training.relations.evaluate import evaluate_relations, is_relation_model
    from hf_causal_video.training.report import print_report
    from hf_causal_video.utils.precision import matmul_precision

    base = Path(options.checkpoint) if Path(options.checkpoint).is_dir() else Path()
    is_world = options.dataset == "world"
    name = Path(options.dataset).name.split(".")[0] if Path(options.dataset).is_file() else Path(options.dataset).name
    split = options.split or ("iid" if is_world else "test")
    output = Path(options.output) if options.output else base / "evaluation" / f"{name}-{split}"
    world = recipe_world(options.checkpoint) if is_world and options.world is None else options.world
    if is_relation_model(options.checkpoint):
        if options.prior and not options.output:
            output = output.with_name(f"{output.name}-{options.prior}")
        with matmul_precision(options.matmul_precision):
            report = evaluate_relations(
                options.checkpoint,
                options.dataset,
                split,
                annotations=options.annotations,
                tracks=options.features,
                training_annotations=options.training_annotations,
                output=output,
                world=world,
                prior=options.prior,
                device=options.device,
            )
        tracks = f", tracks: {report['tracks']}" if report["tracks"] else ""
        title = f"{options.checkpoint} on {options.dataset}, {split}{tracks}: {report['records']} records"
        print_report(title, report["metrics"], output)
        return
    report = evaluate_checkpoint(
        options.checkpoint,
        options.dataset,
        split,
        features=options.features,
        output=output,
        num_frames=options.num_frames,
        world=world,
        span_rule=options.span_rule,
        batch_size=options.batch_size,
        annotations=options.annotations,
        spans=options.spans,
        device=options.device,
        precision=options.matmul_precision,
    )
    title = f"{options.checkpoint} on {options.dataset}, {split}: {report['questions']} questions"
    print_report(title, report["metrics"], output)
