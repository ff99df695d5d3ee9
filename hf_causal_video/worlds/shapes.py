"""Shapes, marks of their actions and backdrops: the parts of a rendered frame.

An action must be seen in one single frame, since models look at single frames. So an actor not
only moves, but also has a white mark that differs between the eight actions: speed lines under a jump, arcs
around a spin, and so on.
"""

import colorsys
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from hf_causal_video.worlds.config import ACTIONS, CLASSES, ENVIRONMENTS, TINTS

RGB = {
    "red": (228, 40, 40),
    "orange": (255, 145, 20),
    "yellow": (250, 225, 50),
    "green": (50, 180, 60),
    "cyan": (60, 215, 225),
    "blue": (55, 95, 240),
    "pink": (245, 110, 200),
    "white": (245, 245, 245),
}
OUTLINE = (16, 16, 20)
MARK = (255, 255, 255)
OVERSAMPLING = 4  # drawn this much larger, then reduced: smooth edges
REACH = 2.2  # half the width of a sprite with its mark, in radii


@lru_cache(maxsize=8192)
def shape_sprite(
    kind: int, colour: str, radius: int, percent: int = 100, angle: int = 0, dim: bool = False
) -> Image.Image:
    """Paint one shape on a transparent square.

    Args:
        kind: index into the classes of the world.
        colour: a colour word.
        radius: pixels from the centre to the rim.
        percent: size, 100 for the radius as given.
        angle: degrees counter-clockwise.
        dim: half as bright (every other frame of a flash).

    Example:
        >>> shape_sprite(0, "red", radius=10).getpixel((22, 22))
        (228, 40, 40, 255)
    """
    half = math.ceil(REACH * radius) * OVERSAMPLING
    mask = Image.new("L", (2 * half, 2 * half), 0)
    draw = ImageDraw.Draw(mask)
    r = radius * OVERSAMPLING * percent / 100
    _draw_shape(draw, CLASSES[kind], half, r)
    mask = mask.rotate(angle) if angle else mask
    rgb = tuple(value // 2 for value in RGB[colour]) if dim else RGB[colour]
    return _paint(mask, rgb)


@lru_cache(maxsize=1024)
def mark_sprite(action: int, radius: int) -> Image.Image:
    """Paint the mark of an action on a transparent square, to be laid around a shape of this radius.

    Example:
        >>> mark_sprite(0, radius=10).size
        (44, 44)
    """
    half = math.ceil(REACH * radius) * OVERSAMPLING
    mask = Image.new("L", (2 * half, 2 * half), 0)
    _draw_mark(ImageDraw.Draw(mask), ACTIONS[action], half, radius * OVERSAMPLING)
    return _paint(mask, MARK)


def backdrop(environment: int, size: int, shift: tuple[int, int] = (0, 0), tint: int | None = None) -> Image.Image:
    """Paint the texture of an environment: two dark tones of one hue in its own pattern.

    Args:
        environment: index into the environments of the world.
        size: width and height in pixels.
        shift: where the pattern starts, in pixels.
        tint: the hue, index into `TINTS`; None: each environment has its own.

    Example:
        >>> backdrop(1, size=64).size
        (64, 64)
    """
    y, x = np.mgrid[:size, :size]
    unit = size / 128  # patterns keep their look at any size
    x, y = (x + shift[0]) / unit, (y + shift[1]) / unit
    row = y // 16
    bright = {
        "stripes": (x + y) % 28 < 14,
        "checks": (x // 20 + y // 20) % 2 < 1,
        "dots": (x % 20 - 10) ** 2 + (y % 20 - 10) ** 2 < 36,
        "waves": (y + 6 * np.sin(x / 8)) % 22 < 11,
        "bars": x % 24 < 12,
        "bricks": (y % 16 > 2) & ((x + 16 * (row % 2)) % 32 > 2),
        "grid": (x % 18 < 3) | (y % 18 < 3),
        "rays": np.arctan2(y - 64, x - 64) * 16 / np.pi % 4 < 2,
    }[ENVIRONMENTS[environment]]
    hue = environment / len(ENVIRONMENTS) if tint is None else tint / len(TINTS)
    tones = [colorsys.hsv_to_rgb(hue, 0.45, value) for value in (0.22, 0.42)]
    pixels = np.where(bright[..., None], tones[1], tones[0]) * 255
    return Image.fromarray(pixels.astype(np.uint8))


def _paint(mask: Image.Image, rgb: tuple[int, ...]) -> Image.Image:
    """Reduce the mask and paint it in one colour with a dark rim of one pixel."""
    mask = mask.reduce(OVERSAMPLING)
    image = Image.new("RGBA", mask.size, (*OUTLINE, 0))
    image.paste(Image.new("RGBA", mask.size, (*OUTLINE, 255)), mask=mask.filter(ImageFilter.MaxFilter(3)))
    image.paste(Image.new("RGBA", mask.size, (*rgb, 255)), mask=mask)
    return image


def _star(centre: float, radii: tuple[float, float], points: int) -> list[tuple[float, float]]:
    corners = range(2 * points)
    return [_at(centre, radii[i % 2], 180 * i / points - 90) for i in corners]


def _at(centre: float, radius: float, degrees: float) -> tuple[float, float]:
    return (centre + radius * math.cos(math.radians(degrees)), centre + radius * math.sin(math.radians(degrees)))


def _disk(c: float, r: float, dx: float = 0, dy: float = 0) -> tuple[float, float, float, float]:
    return (c + dx - r, c + dy - r, c + dx + r, c + dy + r)


def _draw_shape(draw: ImageDraw.ImageDraw, name: str, c: float, r: float) -> None:
    if name == "circle":
        draw.ellipse(_disk(c, 0.92 * r), fill=255)
    elif name == "square":
        draw.rectangle(_disk(c, 0.8 * r), fill=255)
    elif name == "triangle":
        draw.polygon([_at(c, 1.05 * r, degrees) for degrees in (-90, 30, 150)], fill=255)
    elif name == "star":
        draw.polygon(_star(c, (1.05 * r, 0.42 * r), 5), fill=255)
    elif name == "cross":
        draw.rectangle((c - r, c - 0.32 * r, c + r, c + 0.32 * r), fill=255)
        draw.rectangle((c - 0.32 * r, c - r, c + 0.32 * r, c + r), fill=255)
    elif name == "diamond":
        draw.polygon([(c, c - 1.05 * r), (c + 0.62 * r, c), (c, c + 1.05 * r), (c - 0.62 * r, c)], fill=255)
    elif name == "ring":
        draw.ellipse(_disk(c, r), fill=255)
        draw.ellipse(_disk(c, 0.52 * r), fill=0)
    else:  # moon
        draw.ellipse(_disk(c, r), fill=255)
        draw.ellipse(_disk(c, 0.85 * r, dx=0.5 * r, dy=-0.15 * r), fill=0)


def _draw_mark(draw: ImageDraw.ImageDraw, name: str, c: float, r: float) -> None:
    width = max(1, round(0.17 * r))

    def line(*points: tuple[float, float]) -> None:
        draw.line([(c + r * x, c + r * y) for x, y in points], fill=255, width=width, joint="curve")

    if name == "jumping":  # speed lines below
        for x in (-0.6, 0, 0.6):
            line((x, 1.35), (x, 2.0))
    elif name == "spinning":  # two arcs, each with an arrow head
        for start in (20, 200):
            draw.arc(_disk(c, 1.55 * r), start, start + 120, fill=255, width=width)
            tip = start + 120
            points = [_at(c, 1.15 * r, tip), _at(c, 1.9 * r, tip), _at(c, 1.5 * r, tip + 30)]
            draw.polygon(points, fill=255)
    elif name == "shaking":  # a zigzag on either side
        for side in (-1, 1):
            line(*[(side * (1.45 + 0.35 * (i % 2)), -0.8 + 0.4 * i) for i in range(5)])
    elif name == "growing":  # corners that make room
        for sx in (-1, 1):
            for sy in (-1, 1):
                line((sx * 1.0, sy * 1.7), (sx * 1.7, sy * 1.7), (sx * 1.7, sy * 1.0))
    elif name == "flashing":  # rays all around
        for degrees in range(0, 360, 45):
            draw.line([_at(c, 1.4 * r, degrees), _at(c, 2.0 * r, degrees)], fill=255, width=width)
    elif name == "sliding":  # long lines to the left
        for y in (-0.6, 0, 0.6):
            line((-1.95, y), (-1.25, y))
    elif name == "swinging":  # two ropes from a peg
        line((-0.7, -0.9), (0, -1.9), (0.7, -0.9))
        draw.ellipse(_disk(c, 0.28 * r, dy=-1.85 * r), fill=255)
    else:  # circling: a dotted circle
        for degrees in range(0, 360, 30):
            x, y = _at(0, 1.6 * r, degrees)
            draw.ellipse(_disk(c, 0.16 * r, dx=x, dy=y), fill=255)
