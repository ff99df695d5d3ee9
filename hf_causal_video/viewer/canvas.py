"""A small canvas over Pillow: text that wraps, round boxes, pictures; drawn at twice the size for clean edges.

Why Pillow alone: the strip has to be made wherever the model runs, and a plotting library is a heavy guest.
"""

import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # drawn this much larger, then reduced
INK, MUTED, FAINT, PAPER = "#1b1f2a", "#667085", "#e4e7ec", "#ffffff"
EVIDENCE, TRUTH, WRONG, PLAIN = "#e8590c", "#0b7a75", "#c92a2a", "#98a2b3"
Box = tuple[float, float, float, float]


@lru_cache(maxsize=64)
def font(size: float, path: str | None = None) -> ImageFont.FreeTypeFont:
    """The font at a size in canvas pixels: Pillow's own, or a font file (for scripts that it does not have)."""
    if path is not None:
        return ImageFont.truetype(path, round(size * SCALE))
    found = ImageFont.load_default(size=size * SCALE)
    if not isinstance(found, ImageFont.FreeTypeFont):  # pragma: no cover - Pillow built without FreeType
        raise RuntimeError("Pillow was built without FreeType, so text cannot be sized; reinstall Pillow from a wheel")
    return found


@lru_cache(maxsize=4096)
def _plain(letter: str) -> str:
    """A letter as Pillow's own font can write it: itself, its ASCII form (é as e, a dash as -), or a question mark."""
    face = font(20)
    if letter.isspace() or bytes(face.getmask(letter)) != bytes(face.getmask("\U0010ffff")):
        return letter
    ascii_form = {"–": "-", "—": "-", "‑": "-", "−": "-"}.get(letter) or unicodedata.normalize("NFKD", letter)
    return ascii_form.encode("ascii", "ignore").decode() or "?"


class Canvas:
    """A picture to draw on in pixels of the final size.

    Args:
        width: final width in pixels.
        height: final height in pixels.
        font_path: a font file. Pillow's own by default, which has no accents and Latin letters only: others
            are written in their ASCII form, or as a question mark.

    Example:
        >>> canvas = Canvas(120, 40)
        >>> canvas.text(4, 4, "why", 16)
        >>> canvas.finish().size
        (120, 40)
    """

    def __init__(self, width: int, height: int, font_path: str | None = None):
        self.size, self.font_path = (width, height), font_path
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def legible(self, text: str) -> str:
        """Text in letters that the font has."""
        return text if self.font_path else "".join(_plain(letter) for letter in text)

    def width_of(self, text: str, size: float) -> float:
        """Width of a line of text in pixels."""
        return font(size, self.font_path).getlength(self.legible(text)) / SCALE

    def wrap(self, text: str, size: float, width: float, most: int = 99) -> list[str]:
        """Text as lines no wider than `width`; longer words are cut, and past `most` lines comes an ellipsis."""
        lines: list[str] = []
        line = ""
        for word in self.legible(text).split():
            while self.width_of(word, size) > width and len(word) > 1:  # one word wider than a line
                fits = max(1, next(n for n in range(len(word), -1, -1) if self.width_of(word[:n], size) <= width))
                lines, line, word = [*lines, *([line] if line else []), word[:fits]], "", word[fits:]
            joined = f"{line} {word}".strip()
            if line and self.width_of(joined, size) > width:
                lines, line = [*lines, line], word
            else:
                line = joined
        lines = [*lines, line] if line else lines
        if len(lines) > most:
            last = lines[most - 1]
            while last and self.width_of(last + "…", size) > width:
                last = last[:-1]
            lines = [*lines[: most - 1], last.rstrip() + "…"]
        return lines

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """One line of text; `anchor` as in Pillow ("la": left, ascender line)."""
        face = font(size, self.font_path)
        stroke = max(1, round(size * SCALE / 44)) if bold else 0
        where, text = (x * SCALE, y * SCALE), self.legible(text)
        self.draw.text(where, text, fill=colour, font=face, anchor=anchor, stroke_width=stroke, stroke_fill=colour)

    def box(
        self,
        box: Box,
        fill: str | None = None,
        outline: str | None = None,
        line: float = 0,
        radius: float = 0,
    ) -> None:
        """A filled or outlined rectangle (x0, y0, x1, y1) with round corners."""
        x0, y0, x1, y1 = (value * SCALE for value in box)
        x1, y1 = max(x1, x0), max(y1, y0)
        radius = min(radius * SCALE, (x1 - x0) / 2, (y1 - y0) / 2)
        self.draw.rounded_rectangle((x0, y0, x1, y1), radius, fill, outline, round(line * SCALE))

    def line(self, points: list[tuple[float, float]], colour: str, width: float = 1) -> None:
        """A line through points."""
        self.draw.line(
            [(x * SCALE, y * SCALE) for x, y in points],
            fill=colour,
            width=round(width * SCALE),
            joint="curve",
        )

    def picture(self, frame: np.ndarray, box: Box, dim: float = 0.0, radius: float = 0) -> None:
        """A frame, cut to the shape of the box around its middle; `dim` in [0, 1] fades it towards the paper."""
        x0, y0, x1, y1 = (round(value * SCALE) for value in box)
        width, height = max(1, x1 - x0), max(1, y1 - y0)
        image = _cover(Image.fromarray(frame), width, height)
        if dim:
            grey = Image.merge("RGB", [image.convert("L")] * 3)
            image = Image.blend(Image.blend(image, grey, 0.75), Image.new("RGB", image.size, PAPER), dim)
        mask = Image.new("L", (width, height), 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius * SCALE, 255)
        self.image.paste(image, (x0, y0), mask)

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.resize(self.size, Image.Resampling.LANCZOS)


def _cover(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))
