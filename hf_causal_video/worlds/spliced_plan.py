"""Plan of spliced films: which clips share a film, and what is asked about each stretch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from hf_causal_video.utils.errors import require
from hf_causal_video.worlds.spliced_options import SpliceOptions
from hf_causal_video.worlds.spliced_sources import ClipQuestion, Source

SPLITS = ("train", "validation", "test")
PRESENCE = "which of these is shown?"


class FilmQuestion(TypedDict):
    """A question about one stretch of a film."""

    stretch: int
    question: str
    choices: list[str]
    answer: int
    question_type: str


@dataclass
class Film:
    """One film: its stretches in order, and its questions."""

    film_id: str
    stretches: list[Source]
    questions: list[FilmQuestion] = field(default_factory=list)


def split_clips(sources: Sequence[Source], options: SpliceOptions) -> dict[str, list[Source]]:
    """Clips of each split. With too few for three splits, validation shares the clips of training; else test alone.

    Raises:
        CausalVideoError: fewer clips than a film has stretches.
    """
    size = options.per_film
    count = len(sources)
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
    draw = np.random.default_rng([options.seed, SPLITS.index(split)])
    pool = pools[split]
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
        film.questions = _questions(film, pools, split, options, draw)
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


def _absent(film: Film, pools: dict[str, list[Source]], split: str, draw: np.random.Generator) -> list[str]:
    """Classes outside a film in random order: of its own split, then of others, whose names might stand out."""
    names: dict[str, None] = {}
    for pool in (pools[split], *(pools[other] for other in sorted(pools) if other != split)):
        names |= dict.fromkeys(str(pool[i].name) for i in draw.permutation(len(pool)))
    shown = {source.name for source in film.stretches}
    return [name for name in names if name not in shown]


def _questions(
    film: Film, pools: dict[str, list[Source]], split: str, options: SpliceOptions, draw: np.random.Generator
) -> list[FilmQuestion]:
    rows: list[FilmQuestion] = []
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
                add(here, PRESENCE, source.name, _absent(film, pools, split, draw), "content")
            if options.ask != "content":
                for word, neighbour in (("after", before), ("before", after)):
                    if neighbour is not None:
                        question = f"what is shown right {word} the {neighbour.name}?"
                        add(here, question, source.name, names, word)
        start, length = stretch_window(source, options)
        for row in source.questions:
            if row.span is not None and not (row.span[0] < start + length and start < row.span[1]):
                continue  # its seconds were cut away
            if any(_same(row.question, one.question) for other in others for one in other.questions):
                continue  # it would have two windows
            right = {one.answer.casefold() for one in source.questions if _same(one.question, row.question)}
            wrong = [answer for answer in _answers(row, others, draw) if answer.casefold() not in right]
            if options.ask != "order":
                add(here, row.question, row.answer, wrong, "content")
            if options.ask != "content" and before is not None:
                cue = before.questions[int(draw.integers(len(before.questions)))]
                question = f'right after "{cue.question} {cue.answer}": {row.question}'
                add(here, question, row.answer, wrong, "after")
    return rows


def _answers(question: ClipQuestion, others: Sequence[Source], draw: np.random.Generator) -> list[str]:
    """Answers of the other stretches: the one to the most similar question of each, then their further ones."""
    head = question.question.casefold().split()
    first: list[str] = []
    further: list[str] = []
    for other in others:
        questions = [other.questions[i] for i in draw.permutation(len(other.questions))]
        shared = [len(os.path.commonprefix([head, one.question.casefold().split()])) for one in questions]
        ranked = [questions[i].answer for i in np.argsort(-np.array(shared), kind="stable")]
        usable = _distinct(question.answer, ranked)
        first += usable[:1]
        further += usable[1:]
    return first + further


def _distinct(right: str, wrong: Sequence[str]) -> list[str]:
    seen = {right.casefold()}
    distinct = []
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
    spans = [one.span for one in source.questions if one.span is not None]
    middle = (spans[0][0] + spans[0][1]) / 2 if spans else source.duration_s / 2
    return float(np.clip(middle - length / 2, 0.0, source.duration_s - length)), length
