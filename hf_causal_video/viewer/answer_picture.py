"""One picture for one answer: question, choices, the frames and objects it kept, and where they lie in time.

Why: an answer with a picture of its reason can be judged in five seconds, by someone who never read the
paper. From top to bottom: question; choices with scores; the kept frames, large, with the kept objects; the
whole clip as a film, kept frames raised and the rest faded; and under it, on the same axis of time, the
predicted and the annotated spans.
"""

from pathlib import Path

from PIL import Image

from hf_causal_video.utils.errors import require
from hf_causal_video.viewer.answer import EvidenceCase
from hf_causal_video.viewer.canvas import EVIDENCE, INK, MUTED, PLAIN, TRUTH, WRONG, Canvas, write_png
from hf_causal_video.viewer.words import clock, percent, replaced_in_words, spans_in_words, tick_in_words

MARGIN, GAP = 48, 12
QUESTION, BODY, SMALL = 40, 26, 20  # text sizes in pixels at width 1600
MOST_CARDS, MOST_CHOICES = 6, 6
CARD_HEIGHT, RAISE = 236, 16
FILM_HEIGHTS = (64.0, 130.0)


def draw_strip(case: EvidenceCase, width: int = 1600, font_path: str | None = None) -> Image.Image:
    """Draw the evidence strip of one case.

    Args:
        case: question, evidence, frames and, where known, the truth.
        width: width in pixels, at least 800; the height follows from the content.
        font_path: a font file; by default Pillow's own, and for each letter that it lacks a font of the system.

    Returns:
        An RGB picture; its `info["replaced"]` holds the letters that are written as question marks.

    Raises:
        CausalVideoError: a width too small to read.

    Example:
        >>> import numpy as np
        >>> from hf_causal_video.models.outputs import Evidence
        >>> frames = [np.zeros((90, 160, 3), np.uint8)] * 4
        >>> evidence = Evidence("run", 0, 0.9, [0.9, 0.1], ["run", "sit"])
        >>> draw_strip(EvidenceCase("what does he do", evidence, frames, [1, 3, 5, 7])).width
        1600
    """
    require(width >= 800, "width of the strip", found=f"{width} px", expected="at least 800", fix="try width=1600")
    height = round(_Strip(case, width, 10, font_path).draw())
    strip = _Strip(case, width, height, font_path)
    strip.draw()
    return strip.canvas.finish()


def save_strip(case: EvidenceCase, path: str | Path, width: int = 1600, font_path: str | None = None) -> Path:
    """Write the strip of `draw_strip` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_strip(case, width, font_path))


class _Strip:
    """Draws from top to bottom and keeps the height reached; a first pass on a tiny canvas measures."""

    def __init__(self, case: EvidenceCase, width: int, height: int, font_path: str | None):
        self.case, self.canvas = case, Canvas(width, height, font_path)
        self.left, self.right = MARGIN, width - MARGIN
        self.measuring = height == 10

    def draw(self) -> float:
        """Draw everything; returns the height needed."""
        y = self.heading(MARGIN - 8)
        y = self.choices(y + 18)
        y = self.proof(y + 10)
        y, anchors = self.cards(y + 16)
        y = self.film(y, anchors)
        y = self.timeline(y + 10)
        if self.canvas.replaced:
            text = replaced_in_words("".join(sorted(self.canvas.replaced)))
            for line in self.canvas.wrap(text, SMALL, self.right - self.left, most=2):
                self.canvas.text(self.left, y, line, SMALL, MUTED)
                y += SMALL * 1.3
        return y + MARGIN - 14

    def heading(self, y: float) -> float:
        """The title and the question."""
        if self.case.title:
            self.canvas.text(self.left, y, self.case.title, SMALL, MUTED)
            y += SMALL + 10
        for line in self.canvas.wrap(self.case.question, QUESTION, self.right - self.left):
            self.canvas.text(self.left, y, line, QUESTION, bold=True)
            y += QUESTION * 1.22
        return y

    def choices(self, y: float) -> float:
        """Every choice with its score as a bar; the answer in the colour of the evidence, the truth marked."""
        case, canvas = self.case, self.canvas
        order = sorted(range(len(case.evidence.choices)), key=lambda row: -case.evidence.scores[row])
        if len(order) > MOST_CHOICES:
            forced = {case.predicted_row, case.true_row} - {-1}
            shown = set(order[:MOST_CHOICES]) | forced
            order = [row for row in order if row in shown]
        else:
            order = sorted(order)
        widest = max(canvas.width_of(case.evidence.choices[row], BODY) for row in order) + 56
        middle = self.left + min(max(widest, 240), (self.right - self.left) * 0.56)
        longest = min(self.right - 330 - middle, 640)
        for row in order:
            chosen, true = row == case.predicted_row, row == case.true_row
            colour = EVIDENCE if chosen else INK
            lines = canvas.wrap(case.evidence.choices[row] or "(empty)", BODY, middle - self.left - 40, most=3)
            height = len(lines) * BODY * 1.2
            for number, line in enumerate(lines):
                canvas.text(self.left, y + number * BODY * 1.2, line, BODY, colour, bold=chosen)
            score = min(max(float(case.evidence.scores[row]), 0.0), 1.0)
            top = y + height / 2 - 10
            canvas.box((middle, top, middle + longest, top + 18), fill="#f2f4f7", radius=9)
            if score * longest >= 0.5:
                tone = EVIDENCE if chosen else PLAIN
                canvas.box((middle, top, middle + max(score * longest, 3), top + 18), tone, radius=9)
            x = middle + longest + 18
            canvas.text(x, top + 9, percent(score), BODY - 2, colour, anchor="lm", bold=chosen)
            label, tone = self.verdict(chosen, true)
            if label:
                wide = canvas.width_of(label, SMALL) + 24
                canvas.box((x + 84, top - 7, x + 84 + wide, top + 25), outline=tone, line=1.5, radius=16)
                canvas.text(x + 84 + wide / 2, top + 9, label, SMALL, tone, anchor="mm")
            y += height + 12
        if case.true_answer is not None and case.true_row < 0:
            for line in canvas.wrap(f"true answer: {case.true_answer}", BODY, self.right - self.left, most=2):
                canvas.text(self.left, y, line, BODY, TRUTH)
                y += BODY * 1.2 + 8
        return y

    def verdict(self, chosen: bool, true: bool) -> tuple[str, str]:
        """The tag behind a choice and its colour."""
        if chosen and self.case.right is not None:
            return ("right", TRUTH) if self.case.right else ("wrong", WRONG)
        if chosen:
            return "answer", EVIDENCE
        return ("true answer", TRUTH) if true else ("", "")

    def proof(self, y: float) -> float:
        """Draw the verdict with its numbers, and the notes."""
        case = self.case
        necessary = case.verdict is not None and case.verdict.necessary
        lines = [(case.reason, EVIDENCE if necessary else INK)] if case.verdict is not None else []
        lines += [(text, MUTED) for text in case.findings] + [(text, WRONG) for text in case.notes]
        for text, colour in lines:
            for line in self.canvas.wrap(text, SMALL + 2, self.right - self.left, most=3):
                self.canvas.text(self.left, y, line, SMALL + 2, colour, bold=colour == EVIDENCE)
                y += (SMALL + 2) * 1.35
        return y

    def cards(self, y: float) -> tuple[float, dict[int, float]]:
        """The kept frames, large, in order of time; returns the middle of each card for the lines to the film."""
        case, canvas = self.case, self.canvas
        kept = sorted(sorted(case.kept, key=lambda index: -case.kept_scores[index])[:MOST_CARDS])
        text = case.looked_at
        if len(kept) < len(case.kept):
            text += f"; the {len(kept)} strongest, large"
        canvas.text(self.left, y, text, SMALL, MUTED)
        y += SMALL + 14
        if not kept:
            return y, {}
        tall, shape = case.frames[kept[0]].shape[:2]
        room = (self.right - self.left - GAP * (len(kept) - 1)) / len(kept)
        wide = min(room, CARD_HEIGHT * shape / tall * 1.35)
        high = min(wide * tall / shape, 1.35 * CARD_HEIGHT)
        wide = min(wide, high * shape / tall)
        anchors = {}
        for index, x in zip(kept, self.spread([self.at(case.times_s[one]) for one in kept], wide), strict=True):
            area = (x, y, x + wide, y + high)
            if not self.measuring:
                canvas.picture(case.frames[index], area, radius=6)
            for one in case.boxes(index):
                x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in one.box or (0, 0, 0, 0))
                inner = (x + x0 * wide, y + y0 * high, x + x1 * wide, y + y1 * high)
                canvas.box((inner[0] - 1.5, inner[1] - 1.5, inner[2] + 1.5, inner[3] + 1.5), None, "#ffffff", 6, 3)
                canvas.box(inner, outline=EVIDENCE, line=3, radius=3)
            stamp = clock(case.times_s[index])
            plate = (x + 8, y + high - 36, x + 20 + canvas.width_of(stamp, SMALL) + 8, y + high - 8)
            canvas.box(plate, fill=INK, radius=6)
            canvas.text((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2, stamp, SMALL, "#ffffff", anchor="mm")
            anchors[index] = x + wide / 2
        return y + high, anchors

    def spread(self, middles: list[float], wide: float) -> list[float]:
        """Left edges of cards as near above their moments as they fit side by side."""
        edges: list[float] = []
        for number, middle in enumerate(middles):
            last = self.right - (len(middles) - number) * (wide + GAP) + GAP
            first = edges[-1] + wide + GAP if edges else self.left
            edges.append(max(first, min(middle - wide / 2, last)))
        return edges

    def at(self, time_s: float) -> float:
        """Return the place of a time on the axis, in pixels."""
        return self.left + (self.right - self.left) * time_s / self.case.end_s

    def film(self, y: float, anchors: dict[int, float]) -> float:
        """All frames, each within its slice of time; kept ones raised and in colour, the others faded."""
        case, canvas = self.case, self.canvas
        y += 44 + RAISE if anchors else RAISE
        tall, shape = case.frames[0].shape[:2]
        slot = (self.right - self.left) / len(case.frames)
        height = min(max(slot * tall / shape, FILM_HEIGHTS[0]), FILM_HEIGHTS[1])
        for index in sorted(range(len(case.frames)), key=lambda one: one in case.kept_scores):
            kept = index in case.kept_scores
            start, end = (self.at(time) for time in case.slices[index])
            wide = min(end - start, height * shape / tall)
            middle = min(max(self.at(case.times_s[index]), start + wide / 2), end - wide / 2)
            gap = min(1.5, wide / 8)
            top = y - RAISE if kept else y
            area = (middle - wide / 2 + gap, top, middle + wide / 2 - gap, top + height)
            if index in anchors:
                bend = [(anchors[index], y - RAISE - 44), (anchors[index], y - RAISE - 26), (middle, y - RAISE - 8)]
                canvas.line([*bend, (middle, top)], EVIDENCE, 2)
            if not self.measuring:
                canvas.picture(case.frames[index], area, dim=0.0 if kept else 0.55, radius=3)
            if kept:
                canvas.box(area, outline=EVIDENCE, line=min(3.0, max(1.0, wide / 12)), radius=3)
        return y + height

    def timeline(self, y: float) -> float:
        """The axis with ticks, and under it the predicted and the annotated spans with their seconds."""
        case, canvas = self.case, self.canvas
        canvas.line([(self.left, y + 4), (self.right, y + 4)], PLAIN, 1.5)
        step = next(s for s in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1e9) if case.end_s / s <= 14)
        count = int(case.end_s / step + 1e-6)
        for number in range(count + 1):
            x = self.at(number * step)
            canvas.line([(x, y), (x, y + 8)], PLAIN, 1.5)
            label = tick_in_words(number * step, step, last=number == count)
            canvas.text(x, y + 14, label, SMALL, MUTED, anchor="ma" if x < self.right - 24 else "ra")
        y += SMALL + 26
        rows = [("evidence", case.evidence.spans, EVIDENCE), ("annotated", case.true_spans, TRUTH)]
        for name, spans, colour in rows:
            if not spans:
                continue
            canvas.box((self.left, y + 3, self.right, y + 15), fill="#f2f4f7", radius=6)
            for start, end in ((span[0], span[1]) for span in spans):
                x0, x1 = self.at(start), self.at(end)
                canvas.box((x0, y, max(x1, x0 + 4), y + 18), fill=colour, radius=6)
            y += 22
            for line in canvas.wrap(f"{name} {spans_in_words(spans)}", SMALL, self.right - self.left, most=2):
                canvas.text(self.left, y, line, SMALL, colour)
                y += SMALL * 1.3
            y += 6
        return y
