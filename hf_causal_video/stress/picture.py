"""A stress test as one picture: an accuracy bar for every way of asking, and what the evidence was worth."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from hf_causal_video.stress.report import Effect, Report
from hf_causal_video.viewer.canvas import EVIDENCE, FAINT, INK, MUTED, PLAIN, TRUTH, write_png
from hf_causal_video.viewer.sheet import Sheet

LINE = 38
BAR = 20
LABELS = 340  # width of the words on the left
VALUES = 210  # width of the numbers on the right
COLOURS = {"whole": INK, "evidence_only": EVIDENCE, "evidence_removed": EVIDENCE, "evidence_effect": EVIDENCE}
WORDS = {
    "evidence_effect": "evidence: only - removed",
    "control_effect": "random window: only - removed",
    "evidence_over_control": "evidence over random window",
    "visual_gain": "whole clip - blind",
}


def draw_stress(report: Report, title: str = "", width: int = 1200, font_path: str | None = None) -> Image.Image:
    """Draw the report of a stress test.

    Args:
        report: of `stress_test`.
        title: above it; the name of what was tested by default.
        width: in pixels, at least 900.
        font_path: a font file; by default Pillow's own, and for each letter that it lacks a font of the system.

    Raises:
        CausalVideoError: a width too small to read, a font file that is missing or invalid.
    """
    return _Picture(report, title, width, font_path).render()


def save_stress(
    report: Report, path: str | Path, title: str = "", width: int = 1200, font_path: str | None = None
) -> Path:
    """Write the picture of `draw_stress` as a PNG file, whole or not at all."""
    return write_png(path, draw_stress(report, title, width, font_path))


class _Picture(Sheet):
    least_width = 900
    margin = 40

    def __init__(self, report: Report, title: str, width: int, font_path: str | None):
        super().__init__(width, font_path)
        self.report = report
        self.title = title or str(report["settings"]["name"])
        self.start = self.left + LABELS  # where bars are
        self.end = self.right - VALUES

    def draw(self) -> float:
        """Draw everything; return the height reached."""
        y = self.write(self.top, self.title, 28, bold=True, most=1, line=1.4)
        questions = f"{self.report['questions']} questions about {self.report['videos']} videos"
        about = f"accuracy in percent, {questions}, lines are 95 % intervals by video"
        y = self.write(y, about, 16, MUTED, most=1)
        y = self.accuracies(y + 24)
        return self.effects(y) if self.report["effects"] else y

    def accuracies(self, y: float) -> float:
        """Draw the accuracy of every test, and that of a guess."""
        chance = self.report["chance"]
        top = y

        def at(percent: float) -> float:
            return self.start + (self.end - self.start) * percent / 100

        for row in self.report["rows"]:
            self.bar(y, row["asks"], row["test"], at, (0.0, row["accuracy"]), row["interval"])
            self.canvas.text(self.end + 16, y, f"{row['accuracy']:.1f}", 18, INK)
            y += LINE
        if chance is not None:
            bottom = y - LINE + BAR + 8
            self.canvas.line([(at(chance), top - 10), (at(chance), bottom)], TRUTH, 2)
            self.canvas.text(at(chance) + 6, bottom - 6, f"a guess {chance:.0f}", 14, TRUTH)
        return y

    def effects(self, y: float) -> float:
        """Draw differences of two accuracies around zero."""
        effects: dict[str, Effect] = self.report["effects"]
        self.canvas.line([(self.left, y + 24), (self.right, y + 24)], FAINT, 2)
        y += 46
        top = y
        reach = max(100.0, *(abs(edge) for effect in effects.values() for edge in effect["interval"]))

        def at(difference: float) -> float:
            return (self.start + self.end) / 2 + (self.end - self.start) / 2 * difference / reach

        for name, effect in effects.items():
            value = effect["value"]
            low, high = effect["interval"]
            self.bar(y, WORDS[name], name, at, (min(0.0, value), max(0.0, value)), effect["interval"])
            self.canvas.text(self.end + 16, y, f"{value:+.1f}", 18, INK, bold=name == "evidence_effect")
            self.canvas.text(self.end + 84, y + 3, f"({low:+.1f}, {high:+.1f})", 14, MUTED)
            y += LINE
        self.canvas.line([(at(0), top - 8), (at(0), y - LINE + BAR + 8)], MUTED, 1.5)
        return y

    def bar(
        self,
        y: float,
        words: str,
        name: str,
        at: Callable[[float], float],
        values: tuple[float, float],
        interval: Sequence[float],
    ) -> None:
        """Draw a bar between two values with its words and its interval."""
        colour = COLOURS.get(name, PLAIN)
        middle = y + BAR / 2
        self.canvas.text(self.left, y, words, 18, colour if colour != PLAIN else INK)
        self.canvas.box((self.start, y, self.end, y + BAR), fill=FAINT, radius=4)
        self.canvas.box((at(values[0]), y, at(values[1]), y + BAR), fill=colour, radius=4)
        low, high = (at(edge) for edge in interval)
        if high - low >= 1:
            self.canvas.line([(low, middle), (high, middle)], MUTED, 2)
            for x in (low, high):
                self.canvas.line([(x, middle - 5), (x, middle + 5)], MUTED, 2)
