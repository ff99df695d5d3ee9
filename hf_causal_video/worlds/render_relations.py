"""Films of shapes that move relative to one another, with every box and every relation known.

Why: the road from pixels to relations (detector, tracks, pairs, relations) needs films whose relations are certain and
which cost nothing to get. The annotation is written in the layout of VidVRD, so it enters through the same reader as
real data. How often a predicate happens follows Zipf's law, so the tail is long here too.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.files import write_whole
from hf_causal_video.worlds.config import CLASSES, COLOURS, ENVIRONMENTS
from hf_causal_video.worlds.render import write_video
from hf_causal_video.worlds.shapes import backdrop, shape_sprite

FPS = 8
ACT_FRAMES = 20
ACTS = 2
PAIRS = 2  # a film: two pairs, one above the other, each in two acts
SIZE = 96
RADIUS = 8
BESIDE = 19.0  # pixels: of a film, of a shape, between two centres
BLEND = 3  # frames in which a pair moves from one act to the next
# Offset of subject from object, and of object from its place, in pixels, at frame t of an act.
Motion = Callable[[float], tuple[float, float, float, float]]
MOTIONS: dict[str, Motion] = {
    "rests_beside": lambda t: (BESIDE, 0.0, 0.0, 0.0),
    "follows": lambda t: (-BESIDE, 0.0, 1.6 * t - 14.0, 0.0),
    "approaches": lambda t: (46.0 - 1.4 * t, 0.0, -14.0, 0.0),
    "circles": lambda t: (14 * math.cos(0.6 * t), 14 * math.sin(0.6 * t), 0.0, 0.0),
    "leaves": lambda t: (18.0 + 1.4 * t, 0.0, -14.0, 0.0),
    "hops_beside": lambda t: (-BESIDE, -13 * abs(math.sin(0.8 * t)), 6.0, 4.0),
}
RELATION_WORDS = tuple(MOTIONS)  # the first is the most frequent
ZIPF = 1.0


def render_relations(
    folder: str | Path, split: str, num_clips: int, seed: int = 0, progress: bool = True
) -> list[str]:
    """Render films: `videos/<split>/<id>.mp4` and `annotations/<split>/<id>.json` in the layout of VidVRD.

    Args:
        folder: made if absent; several splits share it.
        split: a name.
        num_clips: films.
        seed: with the name of the split it fixes every pixel.
        progress: show a bar.

    Returns:
        The ids of the films.

    Raises:
        CausalVideoError: fewer than one film.
    """
    require(num_clips >= 1, "films of relations", found=num_clips, expected="1 or more", fix="raise num_clips")
    folder = Path(folder)
    ids = [f"{split}-s{seed}-{index:04d}" for index in range(num_clips)]
    for name in ("videos", "annotations"):
        (folder / name / split).mkdir(parents=True, exist_ok=True)
    for video_id in tqdm(ids, desc=f"render {split}", unit="film", disable=not progress):
        frames, annotation = draw_relations(video_id)
        write_video(folder / "videos" / split / f"{video_id}.mp4", frames, FPS)
        write_whole(folder / "annotations" / split / f"{video_id}.json", json.dumps(annotation))
    return ids


def draw_relations(video_id: str) -> tuple[list[Image.Image], dict[str, object]]:
    """Draw the pictures of one film, which its id fixes, and its annotation.

    Example:
        >>> pictures, annotation = draw_relations("test-s0-0000")
        >>> len(pictures), len(annotation["subject/objects"]), len(annotation["relation_instances"])
        (40, 4, 4)
    """
    rng = np.random.default_rng(list(video_id.encode()))
    kinds = rng.permutation(len(CLASSES))[: 2 * PAIRS]
    chances = np.arange(1, len(MOTIONS) + 1) ** -ZIPF
    acts = rng.choice(len(MOTIONS), (PAIRS, ACTS), p=chances / chances.sum())
    colours = [COLOURS[index] for index in rng.integers(len(COLOURS), size=len(kinds))]
    sprites = [shape_sprite(int(kind), colour, RADIUS) for kind, colour in zip(kinds, colours, strict=True)]
    centres = _centres(rng, acts)  # (T, 2 * PAIRS, 2), subject before object
    empty = backdrop(int(rng.integers(len(ENVIRONMENTS))), SIZE, tuple(rng.integers(0, 24, 2)))
    pictures, frames = [], []
    for positions in centres:
        picture = empty.copy()
        boxes = []
        for tid, (sprite, (x, y)) in enumerate(zip(sprites, positions, strict=True)):
            left, top = round(x - sprite.width / 2), round(y - sprite.height / 2)
            picture.paste(sprite, (left, top), sprite)
            x0, y0, x1, y1 = sprite.getbbox() or (0, 0, 0, 0)
            corners = np.clip([left + x0, top + y0, left + x1, top + y1], 0, SIZE).tolist()
            boxes.append({"tid": tid, "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))})
        pictures.append(picture)
        frames.append(boxes)
    relations = [
        {
            "subject_tid": 2 * pair,
            "object_tid": 2 * pair + 1,
            "predicate": RELATION_WORDS[acts[pair, act]],
            "begin_fid": act * ACT_FRAMES,
            "end_fid": (act + 1) * ACT_FRAMES,
        }
        for pair in range(PAIRS)
        for act in range(ACTS)
    ]
    return pictures, {
        "video_id": video_id,
        "frame_count": len(pictures),
        "fps": float(FPS),
        "width": SIZE,
        "height": SIZE,
        "subject/objects": [
            {"tid": tid, "category": CLASSES[kind], "colour": colours[tid]} for tid, kind in enumerate(kinds)
        ],
        "trajectories": frames,
        "relation_instances": relations,
    }


def _centres(rng: np.random.Generator, acts: np.ndarray) -> np.ndarray:
    """Centres of all shapes in every frame, in pixels: each pair in its own half, a little out of place."""
    motions = list(MOTIONS.values())
    centres = np.empty((ACTS * ACT_FRAMES, 2 * PAIRS, 2))
    for pair in range(PAIRS):
        home = np.array([SIZE / 2, SIZE * (pair + 0.5) / PAIRS]) + rng.uniform(-3, 3, 2)
        mirror = np.array([rng.choice([-1, 1]), 1])
        for frame in range(len(centres)):
            act, t = divmod(frame, ACT_FRAMES)
            dx, dy, ox, oy = motions[acts[pair, act]](t)
            other = np.array([ox, oy]) * mirror
            now = np.stack([home + other + np.array([dx, dy]) * mirror, home + other])
            if act and t < BLEND:
                now += (centres[act * ACT_FRAMES - 1, 2 * pair : 2 * pair + 2] - now) * (1 - (t + 1) / (BLEND + 1))
            centres[frame, 2 * pair : 2 * pair + 2] = now
        centres[:, 2 * pair : 2 * pair + 2] += rng.normal(0, 0.4, (len(centres), 2, 2))
    return centres
