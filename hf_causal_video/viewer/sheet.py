"""Base of all pictures: drawn from top to bottom twice, first to measure the height, then to draw.

Why: text wraps and clips differ in shape, so the height is only known when everything was placed. What the pictures of
answers, relations, selections and stress tests have in common stands here once.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from hf_causal_video.utils.checks import check_whole
from hf_causal_video.viewer.canvas import INK, MUTED, PAPER, PLAIN, TRACK, Box, Canvas
from hf_causal_video.viewer.words import replaced_in_words

SMALL = 20  # text size of labels in pixels


class Sheet:
    """A picture of a given width; subclasses define `draw`.

    Args:
        width: in pixels.
        font_path: a font file; by default Pillow's own, and for each letter that it lacks a font of the system.

    Raises:
        CausalVideoError: a width too small to read, a font file that is missing or invalid.

    Example:
        >>> class Title(Sheet):
        ...     def draw(self):
        ...         return self.write(self.top, "why", 40)
        >>> Title(800).render().size
        (800, 126)
    """

    least_width = 800
    margin = 48

    def __init__(self, width: int, font_path: str | None = None):
        check_whole("width of the picture in pixels", width, self.least_width)
        self.width = width
        self.font_path = font_path
        self.left = self.margin
        self.right = width - self.margin
        self.top = self.margin - 8.0
        self.measuring = True
        self.canvas = Canvas(width, 10, font_path)

    def draw(self) -> float:
        """Draw everything below `top`; return the height that was reached."""
        raise NotImplementedError

    def render(self) -> Image.Image:
        """Return the picture; its `info["replaced"]` holds the letters that are written as question marks."""
        height = self._draw_with_note()
        self.measuring = False
        self.canvas = Canvas(self.width, round(height + self.margin - 14), self.font_path)
        self._draw_with_note()
        return self.canvas.finish()

    def _draw_with_note(self) -> float:
        y = self.draw()
        if self.canvas.replaced:
            y = self.write(y, replaced_in_words("".join(self.canvas.replaced)), SMALL, MUTED, most=2)
        return y

    def write(
        self,
        y: float,
        text: str,
        size: float,
        colour: str = INK,
        bold: bool = False,
        most: int = 99,
        line: float = 1.3,
        right: float | None = None,
    ) -> float:
        """Write text from the left margin in lines of `line` times its size; return the height below it."""
        width = (self.right if right is None else right) - self.left
        for words in self.canvas.wrap(text, size, width, most):
            self.canvas.text(self.left, y, words, size, colour, bold)
            y += size * line
        return y

    def frame(self, frame: np.ndarray, area: Box, dim: float = 0.0, radius: float = 6) -> None:
        """Put a frame into an area; nothing while measuring, since pictures are what takes time."""
        if not self.measuring:
            self.canvas.picture(frame, area, dim, radius)

    def outline(self, area: Box, colour: str) -> None:
        """Outline an object with a light edge, so that it is seen on any picture."""
        x0, y0, x1, y1 = area
        self.canvas.box((x0 - 1.5, y0 - 1.5, x1 + 1.5, y1 + 1.5), None, PAPER, 6, 3)
        self.canvas.box(area, outline=colour, line=3, radius=3)

    def stamp(self, area: Box, text: str) -> None:
        """Write text on a plate in the lower left corner of an area."""
        x = area[0] + 8
        bottom = area[3] - 8
        right = x + self.canvas.width_of(text, SMALL) + 18
        self.canvas.box((x, bottom - 28, right, bottom), fill=INK, radius=6)
        self.canvas.text((x + right) / 2, bottom - 14, text, SMALL, PAPER, anchor="mm")

    def track(
        self, middle: float, start: float, end: float, spans: Iterable[tuple[float, float]], colour: str
    ) -> None:
        """Draw stretches of an axis from `start` to `end` as bars around a height."""
        self.canvas.box((start, middle - 6, end, middle + 6), fill=TRACK, radius=6)
        for first, last in spans:
            self.canvas.box((first, middle - 9, max(last, first + 4), middle + 9), fill=colour, radius=6)

    def axis(self, y: float, start: float, end: float, ticks: Sequence[tuple[float, str]]) -> float:
        """Draw an axis with ticks at places in [0, 1]; return the height below its labels."""
        self.canvas.line([(start, y + 4), (end, y + 4)], PLAIN, 1.5)
        for place, label in ticks:
            x = start + (end - start) * place
            half = self.canvas.width_of(label, SMALL) / 2
            self.canvas.line([(x, y), (x, y + 8)], PLAIN, 1.5)
            # the first and the last label do not reach beyond the margins
            self.canvas.text(
                min(max(x, self.left + half), self.right - half), y + 14, label, SMALL, MUTED, anchor="ma"
            )
        return y + SMALL + 26
