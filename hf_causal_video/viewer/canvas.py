"""A small canvas over Pillow: text that wraps, round boxes, pictures; drawn at twice the size for clean edges.

Why Pillow alone: the strip has to be made wherever the model runs, and a plotting library is a heavy guest.
"""

import io
import itertools
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_causal_video.utils.errors import require
from hf_causal_video.utils.files import write_whole
from hf_causal_video.viewer.fonts import font_with, has_letter

SCALE = 2  # drawn this much larger, then reduced
INK = "#1b1f2a"
MUTED = "#667085"
FAINT = "#e4e7ec"
TRACK = "#f2f4f7"  # what bars lie on
PAPER = "#ffffff"
EVIDENCE = "#e8590c"
TRUTH = "#0b7a75"
WRONG = "#c92a2a"
PLAIN = "#98a2b3"
Box = tuple[float, float, float, float]
OTHER_KINDS = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf"}


@lru_cache(maxsize=64)
def font(size: float, path: str | None = None) -> ImageFont.FreeTypeFont:
    """The font at a size in canvas pixels: Pillow's own, or a font file."""
    if path is not None:
        return ImageFont.truetype(path, round(size * SCALE))
    face = ImageFont.load_default(size=size * SCALE)
    if not isinstance(face, ImageFont.FreeTypeFont):  # pragma: no cover - Pillow built without FreeType
        raise RuntimeError("Pillow was built without FreeType, so text cannot be sized; reinstall Pillow from a wheel")
    return face


@lru_cache(maxsize=4096)
def _written(letter: str, path: str | None) -> tuple[str, str | None, bool]:
    """How a letter is written: the text, the font file (None: Pillow's own), and whether it stands for another one.

    A font without the letter is replaced by one of the system; without any, the ASCII form (é as e, a dash as -) or a
    question mark stands for it.
    """
    if letter.isspace() or has_letter(path, letter):
        return letter, path, False
    if (other := font_with(letter)) is not None:
        return letter, other, False
    if unicodedata.category(letter) in ("Mn", "Cf"):  # a mark or a joiner, which is nothing on its own
        return "", path, False
    ascii_form = {"–": "-", "—": "-", "‑": "-", "−": "-"}.get(letter) or unicodedata.normalize("NFKD", letter)
    text = ascii_form.encode("ascii", "ignore").decode()
    return (text, path, False) if text else ("?", path, True)


class Canvas:
    """A picture to draw on in pixels of the final size.

    Args:
        width: final width in pixels.
        height: final height in pixels.
        font_path: a font file. Pillow's own by default; a letter that the font lacks is taken from a font of the
            system that has it, and `replaced` counts those that none has.

    Raises:
        CausalVideoError: a font file that is missing or invalid.

    Example:
        >>> canvas = Canvas(120, 40)
        >>> canvas.text(4, 4, "why", 16)
        >>> canvas.finish().size
        (120, 40)
    """

    def __init__(self, width: int, height: int, font_path: str | None = None):
        self.size = (width, height)
        self.font_path = font_path
        self.replaced: set[str] = set()
        if font_path is not None:
            try:
                font(20, font_path)
            except OSError:
                valid = False
            else:
                valid = True
            require(valid, "font", found=font_path, expected="a font file (.ttf, .otf)", fix="check the path")
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def legible(self, text: str) -> str:
        """Text in letters that can be written."""
        return "".join(_written(letter, self.font_path)[0] for letter in text)

    def runs(self, text: str) -> list[tuple[str, str | None]]:
        """Text as parts that one font can write each, with the path of that font."""
        letters = [_written(letter, self.font_path) for letter in text]
        self.replaced |= {letter for letter, (_, _, lost) in zip(text, letters, strict=True) if lost}
        parts = itertools.groupby(letters, lambda one: one[1])
        return [("".join(letter for letter, _, _ in group), path) for path, group in parts]

    def width_of(self, text: str, size: float) -> float:
        """Width of a line of text in pixels."""
        return sum(font(size, path).getlength(part) for part, path in self.runs(text)) / SCALE

    def wrap(self, text: str, size: float, width: float, most: int = 99) -> list[str]:
        """Text as lines no wider than `width`; longer words are cut, and past `most` lines comes an ellipsis."""
        lines: list[str] = []
        line = ""
        for word in text.split():
            while self.width_of(word, size) > width and len(word) > 1:  # one word wider than a line
                fits = max(1, next(n for n in range(len(word), -1, -1) if self.width_of(word[:n], size) <= width))
                lines += [line, word[:fits]] if line else [word[:fits]]
                line = ""
                word = word[fits:]
            joined = f"{line} {word}".strip()
            if line and self.width_of(joined, size) > width:
                lines.append(line)
                line = word
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
        self, x: float, y: float, text: str, size: float, colour: str = INK, bold: bool = False, anchor: str = "la"
    ) -> None:
        """One line of text; `anchor` as in Pillow: left, middle or right, of the ascender line or the middle."""
        stroke = max(1, round(size * SCALE / 44)) if bold else 0
        horizontal = anchor[0]
        vertical = anchor[1]
        rise, fall = font(size, self.font_path).getmetrics()
        # one baseline for all parts: fonts differ in how far their letters rise
        baseline = y * SCALE + (rise if vertical == "a" else (rise - fall) / 2)
        left = x * SCALE - self.width_of(text, size) * SCALE * {"l": 0.0, "m": 0.5, "r": 1.0}[horizontal]
        for part, path in self.runs(text):
            face = font(size, path)
            place = (left, baseline)
            self.draw.text(place, part, fill=colour, font=face, anchor="ls", stroke_width=stroke, stroke_fill=colour)
            left += face.getlength(part)

    def box(
        self, box: Box, fill: str | None = None, outline: str | None = None, line: float = 0, radius: float = 0
    ) -> None:
        """A filled or outlined rectangle (x0, y0, x1, y1) with round corners."""
        x0, y0, x1, y1 = (value * SCALE for value in box)
        x1, y1 = max(x1, x0), max(y1, y0)
        radius = min(radius * SCALE, (x1 - x0) / 2, (y1 - y0) / 2)
        self.draw.rounded_rectangle((x0, y0, x1, y1), radius, fill, outline, round(line * SCALE))

    def line(self, points: list[tuple[float, float]], colour: str, width: float = 1) -> None:
        """A line through points."""
        self.draw.line(
            [(x * SCALE, y * SCALE) for x, y in points], fill=colour, width=round(width * SCALE), joint="curve"
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
        """The picture at its final size; `info["replaced"]` holds the letters that no font had."""
        picture = self.image.resize(self.size, Image.Resampling.LANCZOS)
        picture.info["replaced"] = "".join(sorted(self.replaced))
        return picture


def _cover(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def check_ending(path: str | Path) -> None:
    """Refuse a name that ends like a picture of another kind than PNG."""
    path = Path(path)
    require(
        path.suffix.lower() not in OTHER_KINDS,
        f"the picture {path.name}",
        found=f"the ending {path.suffix}",
        expected=".png: a PNG file is written",
        fix=f"name it {path.stem}.png",
    )


def write_png(path: str | Path, image: Image.Image) -> Path:
    """Write a picture as a PNG file, whole or not at all.

    Raises:
        CausalVideoError: a name that ends like another kind of picture.
    """
    check_ending(path)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return write_whole(path, buffer.getvalue())
