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
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.features.decode import decode_video
from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.files import whole_file, write_whole
from hf_causal_video.worlds.render import write_video
from hf_causal_video.worlds.spliced_options import SHORTEST_S, SpliceOptions
from hf_causal_video.worlds.spliced_plan import Film, plan_films, split_clips, stretch_window
from hf_causal_video.worlds.spliced_sources import Source, read_sources

PLAN_FILE = "splice.json"


class SpliceReport(TypedDict):
    """Content of `splice.json`."""

    options: dict[str, object]
    splits: dict[str, dict[str, int]]  # counts of clips, films and questions
    films: list[dict]  # `film` and its `stretches` with `clip`, `clip_s` and `film_s`
    left_out: dict[str, str]  # why, by clip


def splice(
    clips: str | Path,
    questions: str | Path,
    output: str | Path,
    options: SpliceOptions | None = None,
    progress: bool = True,
) -> SpliceReport:
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
    options = options or SpliceOptions()
    output = Path(output)
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
) -> SpliceReport:
    listed = []
    for film in (film for split in films.values() for film in split):
        stretches = []
        edge = 0
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


def _claim(output: Path, report: SpliceReport) -> None:
    """Write the plan before the first film, and refuse a folder that holds another."""
    path = output / PLAN_FILE
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if path.is_file():
        require(
            path.read_text(encoding="utf-8") == text,
            "--output",
            found=f"another set in {output}",
            expected="the same clips, questions and options",
            fix="choose another folder, or delete this one",
        )
    output.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


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
        with whole_file(folder / f"{split}.parquet") as partial:
            pq.write_table(questions_dataset(rows).data.table, partial)  # without a bar
        plain = [{"video": row["video_id"], **{k: v for k, v in row.items() if k != "video_id"}} for row in rows]
        write_whole(output / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain))
        digest.update(json.dumps(rows).encode())
    # the digest makes this the card of these questions alone: `datasets` caches by name and card
    files = [{"split": split, "path": f"questions/{split}.parquet"} for split in films]
    config = {"config_name": "questions", "description": f"sha256 {digest.hexdigest()[:16]}", "data_files": files}
    head = yaml.safe_dump({"configs": [config]}, sort_keys=False)
    body = f"Spliced films: {options.per_film} stretches each, windows known exactly (`{PLAN_FILE}`).\n"
    write_whole(output / "README.md", f"---\n{head}---\n{body}")
