"""A stress test as one picture: an accuracy bar for every way of asking, and what the evidence was worth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, TRUTH, Canvas, write_png

MARGIN, LINE, BAR = 40, 38, 20
LABELS, VALUES = 340, 210  # width of the words on the left and of the numbers on the right
COLOURS = {"whole": INK, "evidence_only": EVIDENCE, "evidence_removed": EVIDENCE, "evidence_effect": EVIDENCE}
WORDS = {
    "evidence_effect": "evidence: only - removed",
    "control_effect": "random window: only - removed",
    "evidence_over_control": "evidence over random window",
    "visual_gain": "whole clip - blind",
}


def draw_stress(report: Mapping[str, Any], title: str = "", width: int = 1200) -> Image.Image:
    """Draw the report of a stress test.

    Args:
        report: of `stress_test`.
        title: above it; the name of what was tested by default.
        width: in pixels, at least 900.

    Raises:
        CausalVideoError: a width too small to read.
    """
    if width < 900:
        raise CausalVideoError(
            "picture too narrow", found=f"{width} px", expected="at least 900", fix="try width=1200"
        )
    rows, effects = report["rows"], report["effects"]
    height = MARGIN + 96 + LINE * len(rows) + (64 + LINE * len(effects)) * bool(effects) + MARGIN
    canvas = Canvas(width, height)
    left, right = MARGIN + LABELS, width - MARGIN - VALUES  # where bars are
    [heading] = canvas.wrap(title or str(report["settings"]["name"]), 28, width - 2 * MARGIN, most=1) or [""]
    canvas.text(MARGIN, MARGIN - 8, heading, 28, bold=True)
    about = f"accuracy in percent, {report['questions']} questions about {report['videos']} videos, lines are 95 %"
    canvas.text(MARGIN, MARGIN + 32, about + " intervals by video", 16, MUTED)
    y = MARGIN + 78.0
    for row in rows:
        colour = COLOURS.get(row["test"], PLAIN)
        canvas.text(MARGIN, y, row["asks"], 18, colour if colour != PLAIN else INK)
        canvas.box((left, y, right, y + BAR), fill=FAINT, radius=4)
        scale = (right - left) / 100
        canvas.box((left, y, left + row["accuracy"] * scale, y + BAR), fill=colour, radius=4)
        _whisker(canvas, [left + edge * scale for edge in row["interval"]], y)
        canvas.text(right + 16, y, f"{row['accuracy']:.1f}", 18, INK)
        y += LINE
    if report["chance"] is not None:
        x = left + report["chance"] * (right - left) / 100
        canvas.line([(x, MARGIN + 68), (x, y - LINE + BAR + 8)], TRUTH, 2)
        canvas.text(x + 6, y - LINE + BAR + 2, f"a guess {report['chance']:.0f}", 14, TRUTH)
    if effects:
        y += 30
        canvas.line([(MARGIN, y - 6), (width - MARGIN, y - 6)], FAINT, 2)
        y += 16
        reach = max(100.0, *(abs(edge) for effect in effects.values() for edge in effect["interval"]))
        zero, scale = (left + right) / 2, (right - left) / 2 / reach
        first = y
        for name, effect in effects.items():
            colour = COLOURS.get(name, PLAIN)
            canvas.text(MARGIN, y, WORDS[name], 18, colour if colour != PLAIN else INK)
            canvas.box((left, y, right, y + BAR), fill=FAINT, radius=4)
            edges = sorted((zero, zero + effect["value"] * scale))
            canvas.box((edges[0], y, edges[1], y + BAR), fill=colour, radius=3)
            _whisker(canvas, [zero + edge * scale for edge in effect["interval"]], y)
            low, high = effect["interval"]
            canvas.text(right + 16, y, f"{effect['value']:+.1f}", 18, INK, bold=name == "evidence_effect")
            canvas.text(right + 84, y + 3, f"({low:+.1f}, {high:+.1f})", 14, MUTED)
            y += LINE
        canvas.line([(zero, first - 8), (zero, y - LINE + BAR + 8)], MUTED, 1.5)
    return canvas.finish()


def save_stress(report: Mapping[str, Any], path: str | Path, title: str = "", width: int = 1200) -> Path:
    """Write the picture of `draw_stress` as a PNG file, whole or not at all."""
    return write_png(path, draw_stress(report, title, width))


def _whisker(canvas: Canvas, edges: list[float], y: float) -> None:
    middle = y + BAR / 2
    canvas.line([(edges[0], middle), (edges[1], middle)], MUTED, 2)
    for x in edges:
        canvas.line([(x, middle - 5), (x, middle + 5)], MUTED, 2)
