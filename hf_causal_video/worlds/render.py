"""The confounded world as real video files: coloured shapes that move on textured backdrops.

The same clips as in `world.py`, with the same truth, so that the whole road from pixels to evidence can be
walked with nothing downloaded and everything known. As in the features, the environment is seen only while
nobody acts: the backdrop goes grey when an action begins, unless the world has background_everywhere. The
pattern of the backdrop is the environment, its hue the tint in a world that has one. Frame i of the world is
the second [i, i + 1) of the file.
"""

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.files import whole_file, write_whole
from hf_causal_video.worlds.clips import WorldClips, draw_clips, world_questions
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS, ENVIRONMENTS, SPLITS, TINTS, WorldConfig
from hf_causal_video.worlds.shapes import backdrop, mark_sprite, shape_sprite

STAGE = (70, 70, 74)  # the grey of the backdrop while somebody acts


@dataclass(frozen=True)
class ClipTruth:
    """Ground truth of one rendered clip. Shapes: F video frames, N objects.

    Args:
        fps: video frames per second.
        environment: index into `ENVIRONMENTS`.
        classes: (N,) index into `CLASSES`.
        colours: (N,) index into `COLOURS`.
        actions: (F, N) index into `ACTIONS` of what each object does in each frame, -1 while it does nothing.
        boxes: (F, N, 4), xyxy in [0, 1], of the shape without its mark.
        tint: index into `TINTS`; None where each environment has its own hue.
    """

    fps: int
    environment: int
    classes: np.ndarray
    colours: np.ndarray
    actions: np.ndarray
    boxes: np.ndarray
    tint: int | None = None


def render_split(
    folder: str | Path,
    split: str,
    num_clips: int,
    config: WorldConfig | None = None,
    seed: int = 0,
    *,
    size: int = 128,
    fps: int = 4,
    backdrop_while_acting: float | None = None,
    progress: bool = True,
) -> Dataset:
    """Render one split: `videos/<video_id>.mp4`, `questions/<split>.parquet` and `truth/<split>.json` in the
    folder.

    Splits share a folder, as their ids differ. The questions file is written last: where it is, the split is
    complete.

    Args:
        folder: made if absent.
        split: one of `SPLITS`.
        num_clips: clips, one question each.
        config: the world; `WorldConfig.rendered()` if None.
        seed: with the split it fixes every pixel.
        size: width and height in pixels, even.
        fps: video frames per second.
        backdrop_while_acting: how much of the environment is still seen while somebody acts, from 0.0 nothing to
            1.0 all; None: all if the world has background_everywhere, else nothing.
        progress: show a bar.

    Returns:
        The questions, with the truth columns of `world_questions`.

    Raises:
        CausalVideoError: an unknown split, no clips, or a picture size that cannot be encoded.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     render_split(folder, "iid", num_clips=1, progress=False)[0]["duration_s"]
        16.0
    """
    require(
        size >= 64 and size % 2 == 0 and fps >= 1 and 0 <= (backdrop_while_acting or 0) <= 1,
        "invalid settings of a video",
        found=f"size {size}, fps {fps}, backdrop_while_acting {backdrop_while_acting}",
        expected="an even size of 64 or more, 1 or more frames per second, a share in [0, 1]",
        fix="keep the defaults",
    )
    clips = draw_clips(config or WorldConfig.rendered(), split, num_clips, seed)
    folder = Path(folder)
    for name in ("videos", "questions", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    truth: dict[str, dict[str, object]] = {}
    for index, video_id in enumerate(tqdm(clips.video_ids, desc=f"render {split}", unit="clip", disable=not progress)):
        frames, truth_of_clip = draw_clip(clips, index, size, fps, backdrop_while_acting)
        write_video(folder / "videos" / f"{video_id}.mp4", frames, fps)
        truth[video_id] = {
            "environment": truth_of_clip.environment,
            "classes": truth_of_clip.classes.tolist(),
            "colours": truth_of_clip.colours.tolist(),
            "actions": truth_of_clip.actions.tolist(),
            "boxes": np.round(truth_of_clip.boxes.astype(float), 4).tolist(),
        }
        if truth_of_clip.tint is not None:
            truth[video_id]["tint"] = truth_of_clip.tint
    words = {"classes": CLASSES, "colours": COLOURS, "actions": ACTIONS, "environments": ENVIRONMENTS, "tints": TINTS}
    header = {"fps": fps, "size": size, "seed": seed, "world": clips.config.to_dict(), "words": words}
    write_whole(folder / "truth" / f"{split}.json", json.dumps({**header, "clips": truth}))
    questions = world_questions(clips)
    with whole_file(folder / "questions" / f"{split}.parquet") as partial:
        questions.to_parquet(partial)
    return questions


def read_truth(folder: str | Path, split: str) -> dict[str, ClipTruth]:
    """Read the truth of a rendered split by video id.

    Raises:
        CausalVideoError: the split was not rendered into this folder.
    """
    path = Path(folder) / "truth" / f"{split}.json"
    require(
        path.is_file(),
        "missing truth of the split",
        found=f"no file {path}",
        expected="a rendered split",
        fix="call render_split first",
    )
    stored = json.loads(path.read_text())
    return {
        video_id: ClipTruth(
            fps=stored["fps"],
            environment=clip["environment"],
            classes=np.array(clip["classes"]),
            colours=np.array(clip["colours"]),
            actions=np.array(clip["actions"]),
            boxes=np.array(clip["boxes"], dtype=np.float32),
            tint=clip.get("tint"),
        )
        for video_id, clip in stored["clips"].items()
    }


def draw_clip(
    clips: WorldClips, index: int, size: int = 128, fps: int = 4, backdrop_while_acting: float | None = None
) -> tuple[list[Image.Image], ClipTruth]:
    """Draw the pictures of one clip.

    Args:
        clips: what happens.
        index: which clip.
        size, fps, backdrop_while_acting: as in `render_split`.

    Returns:
        F pictures and their truth.

    Example:
        >>> pictures, truth = draw_clip(draw_clips(WorldConfig.rendered(), "iid", 1), 0)
        >>> len(pictures), truth.boxes.shape
        (64, (64, 4, 4))
    """
    rng = np.random.default_rng([clips.seed, SPLITS.index(clips.split), 2, index])
    acting = np.repeat(clips.acting[index], fps, axis=0)  # (F, N)
    num_frames, num_objects = acting.shape
    positions, cell = _positions(rng, num_objects, size)
    radius = max(5, round(0.21 * cell))
    seconds = np.arange(num_frames)[:, None] / fps
    phase = rng.uniform(0, 2 * math.pi, (2, num_objects))
    drift = 0.05 * cell * np.stack([np.sin(seconds * 0.9 + phase[0]), np.sin(seconds * 0.7 + phase[1])], axis=-1)
    centres = positions + drift  # (F, N, 2)
    tint = None if clips.tint is None else int(clips.tint[index])
    empty = backdrop(int(clips.environment[index]), size, tuple(rng.integers(0, 24, 2)), tint)
    if backdrop_while_acting is None:
        backdrop_while_acting = float(clips.config.background_everywhere)
    stage = Image.blend(Image.new("RGB", empty.size, STAGE), empty, backdrop_while_acting)
    actions = np.where(acting, clips.actions[index], -1)
    pictures = []
    boxes = np.empty((num_frames, num_objects, 4), dtype=np.float32)
    for frame in range(num_frames):
        picture = (stage if acting[frame].any() else empty).copy()
        for thing in range(num_objects):
            action = actions[frame, thing]
            kind = int(clips.classes[index, thing])
            since = frame - fps * clips.windows[index, thing, 0]
            (dx, dy), look = _motion(ACTIONS[action], int(since)) if action >= 0 else ((0.0, 0.0), {})
            x, y = centres[frame, thing] + radius * np.array([dx, dy])
            if action >= 0:
                _lay(picture, mark_sprite(int(action), radius), x, y)
            sprite = shape_sprite(kind, COLOURS[clips.colours[index, thing]], radius, **look)
            left, top = _lay(picture, sprite, x, y)
            x0, y0, x1, y1 = sprite.getbbox() or (0, 0, 0, 0)
            boxes[frame, thing] = (left + x0, top + y0, left + x1, top + y1)
        pictures.append(picture)
    return pictures, ClipTruth(
        fps,
        int(clips.environment[index]),
        clips.classes[index],
        clips.colours[index],
        actions,
        (boxes / size).clip(0, 1),
        tint,
    )


def _positions(rng: np.random.Generator, num_objects: int, size: int) -> tuple[np.ndarray, float]:
    """Give each object a cell of a grid, so that no object hides another: centres (N, 2), width of a cell."""
    columns = math.ceil(math.sqrt(num_objects))
    rows = math.ceil(num_objects / columns)
    cells = rng.permutation(columns * rows)[:num_objects]
    width, height = size / columns, size / rows
    centres = np.stack([(cells % columns + 0.5) * width, (cells // columns + 0.5) * height], axis=-1)
    cell = min(width, height)
    return centres + rng.uniform(-0.04, 0.04, (num_objects, 2)) * cell, cell


def _motion(action: str, step: int) -> tuple[tuple[float, float], dict[str, object]]:
    """Return where an actor is, in radii from its place, and how it looks, at this video frame of its act."""
    beat = step % 4
    if action == "jumping":
        return (0.0, (0.0, -0.4, -0.6, -0.4)[beat]), {}
    if action == "spinning":
        return (0.0, 0.0), {"angle": 30 * step % 360}
    if action == "shaking":
        return ((-0.25, 0.25)[step % 2], 0.0), {}
    if action == "growing":
        return (0.0, 0.0), {"percent": (85, 105, 125, 140)[beat]}
    if action == "flashing":
        return (0.0, 0.0), {"dim": step % 2 == 1}
    if action == "sliding":
        return ((-0.2, 0.1, 0.4, 0.7, 0.4, 0.1)[step % 6], 0.0), {}
    if action == "swinging":
        return ((0.0, 0.35, 0.0, -0.35)[beat], (0.2, 0.0, 0.2, 0.0)[beat]), {"angle": (0, 25, 0, 335)[beat]}
    return ((0.45, 0.0, -0.45, 0.0)[beat], (0.0, 0.45, 0.0, -0.45)[beat]), {}  # circling


def _lay(picture: Image.Image, sprite: Image.Image, x: float, y: float) -> tuple[int, int]:
    left, top = round(x - sprite.width / 2), round(y - sprite.height / 2)
    picture.paste(sprite, (left, top), sprite)
    return left, top


def write_video(path: Path, pictures: list[Image.Image], fps: int) -> None:
    """Write pictures as an mp4 file, whole or not at all."""
    import av

    with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # so that the bytes depend on nothing but the pictures
        stream.options = {"preset": "ultrafast", "tune": "fastdecode", "crf": "18", "g": str(4 * fps)}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
