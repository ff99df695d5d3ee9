"""Parts of html pages: one file with style, script and pictures inside, which may ask for nothing else."""

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image

from hf_causal_video.viewer.style import POLICY, STYLE

Rectangle = tuple[float, float, float, float]  # left, top, width, height in percent


def html_page(title: str, parts: Iterable[str], style: str = "", script: str = "") -> str:
    """Return a whole page.

    Args:
        title: headline of the page, as text.
        parts: html of what stands under it.
        style, script: in addition to the style of all pages.

    Example:
        >>> html_page("<1>", []).count("&lt;1&gt;")
        2
    """
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body><main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main><script>{script}</script></body></html>\n"
    )


def jpeg(frame: np.ndarray, width: int) -> str:
    """Return a frame as the address of a picture that is its own content, no wider or higher than `width`."""
    image = Image.fromarray(frame)
    image.thumbnail((width, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def in_percent(box: Iterable[float]) -> Rectangle:
    """Turn a box xyxy in [0, 1] into percent of the picture; what lies outside is cut off.

    Example:
        >>> in_percent((0.1, 0.2, 0.5, 1.5))
        (10.0, 20.0, 40.0, 80.0)
    """
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in box)
    return round(100 * x0, 2), round(100 * y0, 2), round(100 * (x1 - x0), 2), round(100 * (y1 - y0), 2)


def placed(rectangle: Rectangle) -> str:
    """Return the style that puts an element on a rectangle of the picture below it."""
    left, top, width, height = rectangle
    return f"left:{left:g}%;top:{top:g}%;width:{width:g}%;height:{height:g}%"


def along(start: float, end: float) -> str:
    """Return the style of a stretch of an axis, its ends in [0, 1]."""
    return f"left:{100 * start:.3f}%;width:{100 * (end - start):.3f}%"


def axis(ticks: Iterable[tuple[float, str]]) -> str:
    """Return an axis with labels at places in [0, 1]."""
    marks = "".join(
        f'<span{" class=last" if place > 0.97 else ""} style="left:{100 * place:.3f}%">{label}</span>'
        for place, label in ticks
    )
    return f'<div class="axis">{marks}</div>'
