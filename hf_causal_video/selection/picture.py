"""One picture of a choice: the question, the chosen frames with their seconds, and the score of every candidate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hf_causal_video.selection.rules import Selection
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, Canvas, write_png

WIDTH, MARGIN, GAP, COLUMNS, BARS = 1600, 48, 12, 8, 120


def draw_selection(selection: Selection, frames: Sequence[np.ndarray], question: str) -> Image.Image:
    """Draw what was chosen.

    Args:
        selection: of one clip.
        frames: the chosen frames, (H, W, 3) uint8, in order of time.
        question: what was asked.

    Example:
        >>> chosen = Selection([1], [1.5], [1], [0, 1], [0.1, 0.9], "1 of 2 frames")
        >>> draw_selection(chosen, [np.zeros((9, 16, 3), np.uint8)], "why").width
        1600
    """
    columns = max(1, min(COLUMNS, len(frames)))
    wide = (WIDTH - 2 * MARGIN - GAP * (COLUMNS - 1)) / COLUMNS
    high = wide * frames[0].shape[0] / frames[0].shape[1]
    rows = -(-len(frames) // columns)
    top = MARGIN + 110
    canvas = Canvas(WIDTH, round(top + rows * (high + 40) + BARS + 70))
    canvas.text(MARGIN, MARGIN, canvas.wrap(question or "(no question)", 36, WIDTH - 2 * MARGIN, 1)[0], 36, INK, True)
    canvas.text(MARGIN, MARGIN + 56, canvas.wrap(selection.reason, 22, WIDTH - 2 * MARGIN, 1)[0], 22, MUTED)
    for place, (frame, second) in enumerate(zip(frames, selection.timestamps_s, strict=True)):
        x = MARGIN + (place % columns) * (wide + GAP)
        y = top + (place // columns) * (high + 40)
        canvas.picture(frame, (x, y, x + wide, y + high), radius=4)
        is_kept = selection.kept is None or selection.frame_indices[place] in selection.kept
        colour = EVIDENCE if is_kept else MUTED  # muted: merely next in the model's ranking
        canvas.box((x, y, x + wide, y + high), outline=colour, line=3, radius=4)
        canvas.text(x + wide / 2, y + high + 6, f"{second:.1f} s", 20, colour, anchor="ma")
    base = top + rows * (high + 40) + BARS + 20
    _bars(canvas, selection, base)
    return canvas.finish()


def save_selection(selection: Selection, frames: Sequence[np.ndarray], question: str, path: str | Path) -> Path:
    """Write the picture of `draw_selection` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_selection(selection, frames, question))


def _bars(canvas: Canvas, selection: Selection, base: float) -> None:
    """A bar a candidate, as high as its score; the chosen ones in the colour of evidence."""
    scores = np.array(selection.scores)
    real = np.isfinite(scores)
    low, high = scores[real].min(), scores[real].max()
    share = np.where(real, (scores - low) / (high - low), 0.0) if high > low else np.ones(len(scores))
    step, chosen = (WIDTH - 2 * MARGIN) / len(scores), set(selection.frame_indices)
    canvas.line([(MARGIN, base), (WIDTH - MARGIN, base)], FAINT, 2)
    for place, candidate in enumerate(selection.candidates):
        x = MARGIN + place * step
        top = base - 6 - share[place] * (BARS - 20)
        canvas.box((x + 1, top, x + max(step - 1, 2), base), fill=EVIDENCE if candidate in chosen else PLAIN, radius=2)
    canvas.text(MARGIN, base + 8, f"score of each of {len(scores)} candidates, in order of time", 20, MUTED)
