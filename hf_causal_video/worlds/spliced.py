"""Spliced films: a grounded test with exactly known windows, made of anybody's clips or photographs.

A film is a row of stretches, each from another clip. A question is about one stretch and its wrong choices are answers
of the others, so it cannot be answered without finding that stretch; its window is known to the frame. Films of
training and test share no clip.

Limits: stretches follow each other by hard cuts, which film does not; a question that fits two stretches of one film
is only noticed where its words are the same. Clips whose class alone is known are asked about by presence ("which of
these is shown?", wrong choices from outside the film) or by order ("what is shown right after the tench?").
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.features.decode import decode_video
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.worlds.render import write_video
from hf_causal_video.worlds.spliced_sources import Asked, Source, read_sources

ASK = ("content", "order", "both")
SPLITS = ("train", "validation", "test")
PLAN_FILE = "splice.json"
SHORTEST_S = 0.5
PRESENCE = "which of these is shown?"


@dataclass(frozen=True)
class SpliceOptions:
    """How films are made.

    Args:
        per_film: stretches per film.
        stretch_s: seconds per stretch, from the middle of the clip or of the annotated span; a shorter clip gives all
            it has.
        ask: "content", "order" ("what is shown right after ...") or "both".
        rounds: how often every clip is dealt into a film.
        test_share, validation_share: of the clips.
        width, height: of a film in pixels, even; clips are fitted in and padded.
        fps: frames per second of a film.
        seed: fixes everything.
    """

    per_film: int = 4
    stretch_s: float = 5.0
    ask: str = "content"
    rounds: int = 1
    test_share: float = 0.3
    validation_share: float = 0.1
    width: int = 320
    height: int = 240
    fps: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.per_film >= 2, "stretches per film", found=self.per_film, expected="2 or more")
        require(self.stretch_s >= SHORTEST_S, "stretch", found=self.stretch_s, expected=f"{SHORTEST_S} s or more")
        require(self.ask in ASK, "unknown kind of question", found=self.ask, expected=", ".join(ASK))
        require(self.rounds >= 1, "rounds", found=self.rounds, expected="1 or more")
        shares = (self.test_share, self.validation_share)
        require(min(shares) >= 0 and sum(shares) <= 1, "shares", found=shares, expected="0 to 1, at most 1 together")
        is_even = self.width % 2 == 0 == self.height % 2
        require(is_even and min(self.width, self.height) >= 32, "size", found=(self.width, self.height),
                expected="even, 32 or more")  # fmt: skip
        require(self.fps >= 1, "frames per second", found=self.fps, expected="1 or more")


@dataclass
class Film:
    """One film: its stretches in order, and its questions as (stretch, question, choices, answer, kind)."""

    film_id: str
    stretches: list[Source]
    questions: list[dict[str, Any]] = field(default_factory=list)


def splice(
    clips: str | Path,
    questions: str | Path,
    output: str | Path,
    options: SpliceOptions | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Make a set of spliced films: `videos/*.mp4`, `questions/<split>.parquet`, `<split>.jsonl` and `splice.json`.

    Run again after an interruption, it goes on film by film.

    Args:
        clips, questions: see `read_sources`.
        output: folder of the set; `--dataset OUTPUT` reads its questions, `extract OUTPUT/videos` its films.
        options: how films are made.
        progress: show a bar.

    Returns:
        what `splice.json` holds: options, splits with counts, films with their stretches, what was left out.

    Raises:
        CausalVideoError: too few clips, questions whose answers all coincide, an output folder with another set, and
            whatever `read_sources` refuses.
    """
    options, output = options or SpliceOptions(), Path(output)
    sources, left_out = read_sources(clips, questions)
    for source in [s for s in sources if s.duration_s is not None and s.duration_s < SHORTEST_S]:
        left_out[source.clip_id] = f"{source.duration_s:.2f} s, shorter than {SHORTEST_S} s"
    sources = [source for source in sources if source.clip_id not in left_out]
    pools = split_clips(sources, options)
    films = {split: plan_films(split, pools, options) for split in pools}
    report = _report(films, pools, left_out, options)
    _claim(output, report)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    for film in tqdm(
        [film for split in films.values() for film in split], desc="splice", unit="film", disable=not progress
    ):
        path = output / "videos" / f"{film.film_id}.mp4"
        if not path.is_file():
            write_video(path, [picture for s in film.stretches for picture in _pictures(s, options)], options.fps)
    _write_questions(output, films, options)
    return report


def split_clips(sources: Sequence[Source], options: SpliceOptions) -> dict[str, list[Source]]:
    """Clips of each split. With too few for three splits, validation shares the clips of training; else test alone.

    Raises:
        CausalVideoError: fewer clips than a film has stretches.
    """
    size, count = options.per_film, len(sources)
    require(
        count >= size,
        "clips",
        found=f"{count} with a question or a class that can be read",
        expected=f"at least {size}, the stretches of a film",
        fix="add clips, or lower --per-film",
    )
    order = [sources[i] for i in np.random.default_rng(options.seed).permutation(count)]
    if count < 2 * size or options.test_share == 1:
        return {"test": order}
    test = min(max(size, round(options.test_share * count)), count - size)
    rest = order[test:]
    pools = {"train": rest, "validation": rest, "test": order[:test]}
    if len(rest) >= 2 * size and options.validation_share:
        held = min(max(size, round(options.validation_share * count)), len(rest) - size)
        pools |= {"train": rest[held:], "validation": rest[:held]}
    return pools


def plan_films(split: str, pools: dict[str, list[Source]], options: SpliceOptions) -> list[Film]:
    """Deal the clips of a split into films and ask about every stretch.

    Raises:
        CausalVideoError: no film of the split has a question, since answers coincide or classes are too few.
    """
    draw, pool = np.random.default_rng([options.seed, SPLITS.index(split)]), pools[split]
    films: list[Film] = []
    for _ in range(options.rounds):
        queue = [pool[i] for i in draw.permutation(len(pool))]
        while queue:
            stretches = _fill([], queue, options.per_film)
            queue = [source for source in queue if source not in stretches]
            borrowed = [pool[i] for i in draw.permutation(len(pool))]
            stretches = _fill(stretches, borrowed, options.per_film)  # the last film of a round borrows
            if len(stretches) < options.per_film:
                break  # too few classes to fill a film
            order = draw.permutation(len(stretches))
            films.append(Film(f"{split}_{len(films):04d}", [stretches[i] for i in order]))
    for film in films:
        film.questions = _questions(film, pool, options, draw)
    films = [film for film in films if film.questions]
    require(
        films,
        f"questions of split {split}",
        found=f"{len(pool)} clips whose answers coincide, or whose questions are the same",
        expected=f"films of {options.per_film} clips with different answers",
        fix="add clips with other answers, or lower --per-film",
    )
    return films


def _fill(stretches: list[Source], queue: Sequence[Source], size: int) -> list[Source]:
    """Add clips of the queue until there are `size`, no clip and no class twice."""
    filled = list(stretches)
    for source in queue:
        if len(filled) == size:
            break
        is_there = any(s.clip_id == source.clip_id or (s.name is not None and s.name == source.name) for s in filled)
        if not is_there:
            filled.append(source)
    return filled


def _questions(film: Film, pool: Sequence[Source], options: SpliceOptions, draw: np.random.Generator) -> list[dict]:
    rows: list[dict[str, Any]] = []
    count = options.per_film

    def add(stretch: int, question: str, right: str, wrong: Sequence[str], kind: str) -> None:
        choices = [right, *_distinct(right, wrong)[: count - 1]]
        if len(choices) == count:
            order = draw.permutation(count)
            rows.append(
                {
                    "stretch": stretch,
                    "question": question,
                    "choices": [choices[i] for i in order],
                    "answer": int(np.flatnonzero(order == 0)[0]),
                    "question_type": kind,
                }
            )

    for here, source in enumerate(film.stretches):
        others = [other for other in film.stretches if other is not source]
        before = film.stretches[here - 1] if here else None
        after = film.stretches[here + 1] if here + 1 < count else None
        if source.name is not None:
            names = [str(other.name) for other in others]
            if options.ask != "order":
                absent = [str(s.name) for s in pool if s.name not in {source.name, *names}]
                add(here, PRESENCE, source.name, [absent[i] for i in draw.permutation(len(absent))], "content")
            if options.ask != "content":
                for word, neighbour in (("after", before), ("before", after)):
                    if neighbour is not None:
                        question = f"what is shown right {word} the {neighbour.name}?"
                        add(here, question, source.name, names, word)
        start, length = stretch_window(source, options)
        for asked in source.asked:
            if asked.span is not None and not (asked.span[0] < start + length and start < asked.span[1]):
                continue  # what it asks about was cut away
            if any(_same(asked.question, one.question) for other in others for one in other.asked):
                continue  # it would have two windows
            own = {one.answer.casefold() for one in source.asked if _same(one.question, asked.question)}
            wrong = [answer for answer in _answers(asked, others, draw) if answer.casefold() not in own]
            if options.ask != "order":
                add(here, asked.question, asked.answer, wrong, "content")
            if options.ask != "content" and before is not None:
                cue = before.asked[int(draw.integers(len(before.asked)))]
                question = f'right after "{cue.question} {cue.answer}": {asked.question}'
                add(here, question, asked.answer, wrong, "after")
    return rows


def _answers(asked: Asked, others: Sequence[Source], draw: np.random.Generator) -> list[str]:
    """Answers of the other stretches: the one to the most similar question of each, then their further ones."""
    head = asked.question.casefold().split()
    first: list[str] = []
    further: list[str] = []
    for other in others:
        questions = [other.asked[i] for i in draw.permutation(len(other.asked))]
        shared = [len(os.path.commonprefix([head, one.question.casefold().split()])) for one in questions]
        ranked = [questions[i].answer for i in np.argsort(-np.array(shared), kind="stable")]
        usable = _distinct(asked.answer, ranked)
        first += usable[:1]
        further += usable[1:]
    return first + further


def _distinct(right: str, wrong: Sequence[str]) -> list[str]:
    seen, distinct = {right.casefold()}, []
    for answer in wrong:
        if answer.casefold() not in seen:
            seen.add(answer.casefold())
            distinct.append(answer)
    return distinct


def _same(one: str, other: str) -> bool:
    return one.casefold().strip(" ?.!") == other.casefold().strip(" ?.!")


def stretch_window(source: Source, options: SpliceOptions) -> tuple[float, float]:
    """Start and length in seconds of what a film shows of a clip."""
    if source.duration_s is None:
        return 0.0, options.stretch_s
    length = min(options.stretch_s, source.duration_s)
    spans = [one.span for one in source.asked if one.span is not None]
    middle = (spans[0][0] + spans[0][1]) / 2 if spans else source.duration_s / 2
    return float(np.clip(middle - length / 2, 0.0, source.duration_s - length)), length


def _frames_of(source: Source, options: SpliceOptions) -> int:
    return max(1, round(stretch_window(source, options)[1] * options.fps))


def _pictures(source: Source, options: SpliceOptions) -> list[Image.Image]:
    """The frames of a stretch at the film's rate and size; a clip of a lower rate repeats its frames."""
    count = _frames_of(source, options)
    if source.is_photo:
        with Image.open(source.path) as photo:
            upright = ImageOps.exif_transpose(photo)
            return [_fitted(upright.convert("RGB"), options)] * count
    start, length = stretch_window(source, options)
    rate = float(options.fps)
    while True:
        wanted = max(1, int(length * rate + 1e-6))
        try:
            frames = decode_video(source.path, (start + (np.arange(wanted) + 0.5) * length / wanted).tolist()).frames
            break
        except CausalVideoError as error:
            if wanted == 1 or "does not hold" not in error.what:
                raise
            rate /= 2
    pictures = [_fitted(Image.fromarray(frame), options) for frame in frames]
    return [pictures[number * wanted // count] for number in range(count)]


def _fitted(picture: Image.Image, options: SpliceOptions) -> Image.Image:
    return ImageOps.pad(picture, (options.width, options.height), Image.Resampling.BICUBIC, color=(0, 0, 0))


def _report(
    films: dict[str, list[Film]], pools: dict[str, list[Source]], left_out: dict[str, str], options: SpliceOptions
) -> dict[str, Any]:
    listed = []
    for film in (film for split in films.values() for film in split):
        stretches, edge = [], 0
        for source in film.stretches:
            start, length = stretch_window(source, options)
            count = _frames_of(source, options)
            stretches.append(
                {
                    "clip": source.clip_id,
                    "clip_s": [round(start, 4), round(start + length, 4)],
                    "film_s": [edge / options.fps, (edge + count) / options.fps],
                }
            )
            edge += count
        listed.append({"film": film.film_id, "stretches": stretches})
    return {
        "options": asdict(options),
        "splits": {
            split: {
                "clips": len(pools[split]),
                "films": len(films[split]),
                "questions": sum(len(film.questions) for film in films[split]),
            }
            for split in films
        },
        "films": listed,
        "left_out": dict(sorted(left_out.items())),
    }


def _claim(output: Path, report: dict[str, Any]) -> None:
    """Write the plan before the first film, and refuse a folder that holds another."""
    path, text = output / PLAN_FILE, json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if path.is_file():
        require(
            path.read_text(encoding="utf-8") == text,
            "--output",
            found=f"another set in {output}",
            expected="the same clips, questions and options",
            fix="choose another folder, or delete this one",
        )
    output.mkdir(parents=True, exist_ok=True)
    _write(path, text)


def _write_questions(output: Path, films: dict[str, list[Film]], options: SpliceOptions) -> None:
    """The typed table that `--dataset` reads, and the same rows as JSONL for people and other tools."""
    folder = output / "questions"
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    for split, listed in films.items():
        rows = []
        for film in listed:
            edges = np.cumsum([0, *(_frames_of(source, options) for source in film.stretches)]) / options.fps
            for number, question in enumerate(film.questions):
                stretch = question["stretch"]
                rows.append(
                    {
                        "question_id": f"{film.film_id}_{number}",
                        "video_id": film.film_id,
                        **{name: value for name, value in question.items() if name != "stretch"},
                        "spans": [[float(edges[stretch]), float(edges[stretch + 1])]],
                        "duration_s": float(edges[-1]),
                    }
                )
        pq.write_table(questions_dataset(rows).data.table, folder / f"{split}.parquet")  # without a bar
        plain = [{"video": row["video_id"], **{k: v for k, v in row.items() if k != "video_id"}} for row in rows]
        _write(output / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain))
        digest.update(json.dumps(rows).encode())
    # the digest makes this the card of these questions alone: `datasets` caches by name and card
    files = [{"split": split, "path": f"questions/{split}.parquet"} for split in films]
    config = {"config_name": "questions", "description": f"sha256 {digest.hexdigest()[:16]}", "data_files": files}
    head = yaml.safe_dump({"configs": [config]}, sort_keys=False)
    body = f"Spliced films: {options.per_film} stretches each, windows known exactly (`{PLAN_FILE}`).\n"
    _write(output / "README.md", f"---\n{head}---\n{body}")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
