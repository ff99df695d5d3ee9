"""The NExT-QA half of `frame_selectors.py`: which captioned seconds a selector takes, against the spans of NExT-GQA.

The causal selector is the benchmark's TranSTR (`nextqa_captions.py`, 8 of up to 64 seconds kept), trained on the other
folds, on answers alone. It is asked twice: reading the question and its choices, as it was trained, and reading the
question alone, whose words then stand in for every choice. Beside it stand two similarities: of the question, which is
what a user has, and of question and choices, the better choice counting, so that what it gains from reading the
choices can be told from what it gains from having been trained.

Of the ways to start its ranking, that by question + choice was chosen on these spans (see `nextqa_captions.py`), so
the rows that read choices are optimistic to that extent. "Scenes" judges a second with those within two of it
(`scene_s`); that width was chosen on fold 0, which the table leaves out. Similarity with scenes stands beside it, for
the same reason as above.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nextqa_captions import build_parser, bundled_text_model, encode_texts, split_fold
from nextqa_cosines import Preparation, Texts, collate
from stress_captions import prepare_fold
from torch import Tensor

from hf_causal_video.data import VideoQADataset, read_nextgqa, read_nextqa
from hf_causal_video.features.captions import TextEncoder, import_caption_features
from hf_causal_video.selection import Clip, FrameSelector, RandomSelector, Ranking, SimilaritySelector, UniformSelector
from hf_causal_video.selection.causal import frame_scores

COMPARED_RULES = ("inverse_transform", "split_judge", "determinantal")
SCENE_S = 4.0  # chosen on fold 0, whose questions are not in the table
CAPTIONS = "nextqa_captions/minilm_l6_v2_caption_features.safetensors"
Known = dict[tuple[str, tuple[str, ...]], Texts]


class QuestionVectors:
    """The sentence encoder as a dual encoder: questions to the vectors that were made of them."""

    def __init__(self, vectors: Mapping[str, Tensor]):
        self.vectors = vectors

    @classmethod
    def of(cls, known: Known) -> "QuestionVectors":
        """Those among known texts."""
        return cls({question: texts.question for (question, _), texts in known.items()})

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(n, C)."""
        return torch.stack([self.vectors[text] for text in texts])


class ChoiceSimilarity(FrameSelector):
    """Seconds whose caption is most similar to the question with its best choice; nothing is trained."""

    def __init__(self, known: Known):
        super().__init__()
        self.known = known

    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """The best cosine of question + choice to each caption."""
        assert clip.features is not None
        frames = torch.nn.functional.normalize(clip.features.frame_features.float(), dim=-1)  # (T, C)
        scores = (self.known[question, tuple(choices or ())].statement @ frames.T).amax(0)
        return Ranking(scores.double().numpy(), "most similar to the question with one of its choices")


class CaptionCausal(FrameSelector):
    """TranSTR over captions; without choices the question's own vector stands in for each."""

    def __init__(self, model: Any, prepare: Preparation, known: Known, reads_choices: bool, scene_s: float = 0.0):
        super().__init__(scene_s=scene_s)
        self.model, self.prepare, self.known, self.reads_choices = model.eval(), prepare, known, reads_choices

    @torch.inference_mode()
    def rank(self, clip: Clip, question: str, choices: Sequence[str] | None) -> Ranking:
        """The model's frame scores."""
        assert clip.features is not None
        texts = self.known[question, tuple(choices or ())]
        if not self.reads_choices:
            texts = Texts(texts.question, texts.question.unsqueeze(0), texts.question.unsqueeze(0))
        inputs = collate([{**self.prepare(clip.features.frame_features, texts), "labels": 0}])
        scores = frame_scores(self.model(**{name: x for name, x in inputs.items() if name != "labels"}))[0]
        return Ranking(scores, "that TranSTR needs")


def choose(
    selector: FrameSelector, clip: Any, question: str, choices: Sequence[str] | None, budgets: Sequence[int]
) -> dict[int, list[int]]:
    """Chosen frames for every budget; where a smaller budget is the head of a larger one the clip is read once."""
    length = len(clip) if isinstance(clip, Clip) else len(clip.timestamps_s)
    if isinstance(selector, UniformSelector) or selector.rule in ("inverse_transform", "split_judge"):
        return {
            budget: selector.select(clip, question, min(budget, length), choices or None).frame_indices
            for budget in budgets
        }
    ranked = selector.select(clip, question, min(max(budgets), length), choices or None).ranked
    return {budget: ranked[:budget] for budget in budgets}


def caption_hits(
    seed: int,
    data: Path,
    text_model: str | None,
    folds: Sequence[int],
    budgets: Sequence[int],
    untrained: bool = False,
) -> Iterator[dict[str, Any]]:
    """Rows of the table: share of chosen seconds inside a true span, and of questions with one inside, in percent.

    A clip with fewer seconds than the budget gives all it has. Intervals are 95 % of 1,000 draws of whole videos.
    """
    options = build_parser().parse_args(["--seed", str(seed), "--data", str(data)])
    options.work.mkdir(parents=True, exist_ok=True)
    questions = read_nextqa(data / "nextqa" / "val.csv.gz")
    grounded = read_nextgqa(data / "nextgqa" / "val.csv.gz", data / "nextgqa" / "gsub_val.json")
    spans = {row["question_id"]: row["spans"] for row in grounded}
    store = import_caption_features(data / CAPTIONS)
    encoder = text_model or bundled_text_model()
    if untrained:
        grounded_questions = sorted(set(grounded["question"]))
        vectors = TextEncoder(encoder, max_tokens=64)(grounded_questions)
        words = QuestionVectors(dict(zip(grounded_questions, vectors, strict=True)))
    else:
        texts = encode_texts(questions, encoder, options.work / "texts.safetensors")
        known = {(row["question"], tuple(row["choices"])): texts[row["question_id"]] for row in questions}
        words = QuestionVectors.of(known)
    shares: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for fold in folds:
        if untrained:
            asked = VideoQADataset(split_fold(questions, fold)[2], store, options.frames)
        else:
            model, prepare, asked = prepare_fold(options, fold, questions, texts, store)
        selectors: dict[str, FrameSelector] = {
            "uniform": UniformSelector(),
            "random": RandomSelector(seed),
            "similarity to the question": SimilaritySelector(words),
            "the same, spread": SimilaritySelector(words, 0.5),
            **{f"the same, {rule}": SimilaritySelector(words, rule=rule) for rule in COMPARED_RULES},
            "similarity to the question, scenes": SimilaritySelector(words, scene_s=SCENE_S),
        }
        if not untrained:
            selectors |= {
                "causal, transtr, question alone": CaptionCausal(model, prepare, known, reads_choices=False),
                "causal, transtr, question alone, scenes": CaptionCausal(model, prepare, known, False, SCENE_S),
                "similarity to question + choices": ChoiceSimilarity(known),
                "causal, transtr, question + choices": CaptionCausal(model, prepare, known, reads_choices=True),
                "causal, transtr, question + choices, scenes": CaptionCausal(model, prepare, known, True, SCENE_S),
            }
        for item in (asked[row] for row in range(len(asked))):
            if item["question_id"] not in spans:
                continue
            clip = Clip.read(item["frame_features"].float(), item["timestamps_s"])
            inside = np.array(
                [any(a <= second <= b for a, b in spans[item["question_id"]]) for second in clip.times_s]
            )
            for name, selector in selectors.items():
                for budget, chosen in choose(selector, clip, item["question"], item["choices"], budgets).items():
                    shares[name, budget][item["video_id"]].append(float(inside[chosen].mean()))
    for (name, budget), by_video in shares.items():
        every = np.concatenate([np.array(values) for values in by_video.values()])
        low, high = _interval(by_video, None, seed)
        row = {
            "data": f"NExT-QA captions, {len(folds)} folds", "seed": seed, "selector": name, "budget": budget,
            "questions": len(every),
            "chosen seconds inside a true span %": 100 * float(every.mean()), "low": low, "high": high,
            "questions with one inside %": 100 * float((every > 0).mean()),
        }  # fmt: skip
        for other in ("uniform", "similarity to the question", "similarity to the question, scenes"):
            if name.startswith("causal"):
                row[f"minus {other}, low"], row[f"minus {other}, high"] = _interval(
                    by_video, shares[other, budget], seed
                )
        yield row


def _interval(one: dict[str, list[float]], other: dict[str, list[float]] | None, seed: int) -> tuple[float, float]:
    """95 % of bootstrap means in percent, or of mean differences, drawn by video."""
    draw, videos = np.random.default_rng(seed), sorted(one)
    sums = np.array([sum(one[v]) - (sum(other[v]) if other else 0.0) for v in videos])
    counts = np.array([len(one[v]) for v in videos])
    picks = draw.integers(0, len(videos), (1000, len(videos)))
    means = 100 * sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
