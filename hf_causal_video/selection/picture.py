"""One picture of a choice: the question, the chosen frames with their seconds, and the score of every candidate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hf_causal_video.selection.rules import Selection
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, write_png
from hf_causal_video.viewer.sheet import SMALL, Sheet
from hf_causal_video.viewer.words import clock

GAP = 12
COLUMNS = 8
WIDEST = 320  # of a frame, in pixels
BARS = 100  # height of the highest score


def draw_selection(
    selection: Selection, frames: Sequence[np.ndarray], question: str, width: int = 1600, font_path: str | None = None
) -> Image.Image:
    """Draw what was chosen.

    Args:
        selection: of one clip.
        frames: the chosen frames, (H, W, 3) uint8, in order of time.
        question: what was asked.
        width: width in pixels, at least 800.
        font_path: a font file; by default Pillow's own, and for each letter that it lacks a font of the system.

    Example:
        >>> chosen = Selection([1], [1.5], [1], [0, 1], [0.1, 0.9], "1 of 2 frames")
        >>> draw_selection(chosen, [np.zeros((9, 16, 3), np.uint8)], "why").width
        1600
    """
    return _Picture(selection, frames, question, width, font_path).render()


def save_selection(
    selection: Selection, frames: Sequence[np.ndarray], question: str, path: str | Path, font_path: str | None = None
) -> Path:
    """Write the picture of `draw_selection` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_selection(selection, frames, question, font_path=font_path))


class _Picture(Sheet):
    def __init__(
        self, selection: Selection, frames: Sequence[np.ndarray], question: str, width: int, font_path: str | None
    ):
        super().__init__(width, font_path)
        self.selection = selection
        self.frames = frames
        self.question = question

    def colour(self, frame: int) -> str:
        """Return the colour of a chosen frame: dark where it merely comes next in the model's ranking."""
        kept = self.selection.kept
        return EVIDENCE if kept is None or frame in kept else INK

    def draw(self) -> float:
        """Draw everything; return the height reached."""
        y = self.write(self.top, self.question or "(no question)", 36, INK, bold=True, most=2)
        y = self.write(y + 4, self.selection.reason, 22, MUTED, most=3)
        return self.scores(self.chosen(y + 24) + 20)

    def chosen(self, y: float) -> float:
        """Draw the chosen frames in rows, with their seconds."""
        rows = -(-len(self.frames) // COLUMNS)
        columns = -(-len(self.frames) // rows)
        wide = min((self.right - self.left - GAP * (columns - 1)) / columns, WIDEST)
        high = wide * self.frames[0].shape[0] / self.frames[0].shape[1]
        for place, frame in enumerate(self.frames):
            x = self.left + (place % columns) * (wide + GAP)
            top = y + (place // columns) * (high + 40)
            area = (x, top, x + wide, top + high)
            colour = self.colour(self.selection.frame_indices[place])
            self.frame(frame, area, radius=4)
            self.canvas.box(area, outline=colour, line=3, radius=4)
            second = clock(self.selection.timestamps_s[place])
            self.canvas.text(x + wide / 2, top + high + 6, second, SMALL, colour, anchor="ma")
        return y + rows * (high + 40)

    def scores(self, y: float) -> float:
        """Draw a bar per candidate, as high as its score; the chosen ones in the colours of their frames."""
        scores = np.array(self.selection.scores)
        real = np.isfinite(scores)
        low, high = scores[real].min(), scores[real].max()
        share = np.where(real, (scores - low) / (high - low), 0.0) if high > low else np.ones(len(scores))
        base = y + BARS + 6
        step = (self.right - self.left) / len(scores)
        chosen = set(self.selection.frame_indices)
        self.canvas.line([(self.left, base), (self.right, base)], FAINT, 2)
        for place, candidate in enumerate(self.selection.candidates):
            x = self.left + place * step
            area = (x + 1, base - 6 - share[place] * BARS, x + max(step - 1, 2), base)
            self.canvas.box(area, fill=self.colour(candidate) if candidate in chosen else PLAIN, radius=2)
        words = f"score of each of {len(scores)} candidates, in order of time"
        if self.selection.kept is not None:
            words += "; orange: kept by the model, dark: next in its ranking"
        return self.write(base + 8, words, SMALL, MUTED)
