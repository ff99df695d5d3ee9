"""One picture for one answer: question, choices, the frames and objects it kept, and where they lie in time.

Why: an answer with a picture of its reason can be judged in five seconds, by someone who never read the
paper. From top to bottom: question; choices with scores; the kept frames, large, with the kept objects; the
whole clip as a film, kept frames raised and the rest faded; and under it, on the same axis of time, the
predicted and the annotated spans.
"""

from pathlib import Path

from PIL import Image

from hf_causal_video.viewer.answer import EvidenceCase
from hf_causal_video.viewer.canvas import EVIDENCE, INK, MUTED, PLAIN, TRACK, TRUTH, WRONG, write_png
from hf_causal_video.viewer.sheet import SMALL, Sheet
from hf_causal_video.viewer.words import axis_ticks, clock, percent, spans_in_words

GAP = 12
QUESTION = 40  # text sizes in pixels at width 1600
BODY = 26
MOST_CARDS = 6
MOST_CHOICES = 6
CARD_HEIGHT = 236
RAISE = 16  # of kept frames over the others, in pixels
LINK = 44  # height of the lines from a card to its frame
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
    return _Strip(case, width, font_path).render()


def save_strip(case: EvidenceCase, path: str | Path, width: int = 1600, font_path: str | None = None) -> Path:
    """Write the strip of `draw_strip` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_strip(case, width, font_path))


class _Strip(Sheet):
    def __init__(self, case: EvidenceCase, width: int, font_path: str | None):
        super().__init__(width, font_path)
        self.case = case

    def draw(self) -> float:
        """Draw everything; return the height reached."""
        y = self.heading(self.top)
        y = self.choices(y + 18)
        y = self.proof(y + 10)
        y, anchors = self.cards(y + 16)
        y = self.film(y, anchors)
        return self.timeline(y + 10)

    def heading(self, y: float) -> float:
        """Draw the title and the question."""
        y = self.write(y, self.case.title, SMALL, MUTED, most=1, line=1.5)
        return self.write(y, self.case.question, QUESTION, bold=True, line=1.22)

    def choices(self, y: float) -> float:
        """Draw every choice with its score as a bar; the answer in the colour of the evidence, the truth marked."""
        case = self.case
        canvas = self.canvas
        rows = self.rows_shown()
        widest = max(canvas.width_of(case.evidence.choices[row], BODY) for row in rows) + 56
        start = self.left + min(max(widest, 240), (self.right - self.left) * 0.56)  # of the bars
        longest = min(self.right - 330 - start, 640)
        for row in rows:
            chosen = row == case.predicted_row
            colour = EVIDENCE if chosen else INK
            words = case.evidence.choices[row] or "(empty)"
            below = self.write(y, words, BODY, colour, chosen, most=3, line=1.2, right=start - 40)
            score = min(max(float(case.evidence.scores[row]), 0.0), 1.0)
            middle = (y + below) / 2 - 1
            canvas.box((start, middle - 9, start + longest, middle + 9), fill=TRACK, radius=9)
            if score * longest >= 0.5:
                end = start + max(score * longest, 3)
                canvas.box((start, middle - 9, end, middle + 9), EVIDENCE if chosen else PLAIN, radius=9)
            x = start + longest + 18
            canvas.text(x, middle, percent(score), BODY - 2, colour, anchor="lm", bold=chosen)
            self.tag(x + 84, middle, *self.verdict(chosen, row == case.true_row))
            y = below + 12
        if case.true_answer is not None and case.true_row < 0:
            y = self.write(y, f"true answer: {case.true_answer}", BODY, TRUTH, most=2) + 8
        return y

    def rows_shown(self) -> list[int]:
        """List the choices in their order; of many the likeliest, the answer and the truth."""
        scores = self.case.evidence.scores
        rows = list(range(len(scores)))
        if len(rows) <= MOST_CHOICES:
            return rows
        likeliest = sorted(rows, key=lambda row: -scores[row])
        wanted = {*likeliest[:MOST_CHOICES], self.case.predicted_row, self.case.true_row}
        return [row for row in likeliest if row in wanted]

    def tag(self, x: float, middle: float, label: str, colour: str) -> None:
        """Draw a word in a round frame."""
        if label:
            right = x + self.canvas.width_of(label, SMALL) + 24
            self.canvas.box((x, middle - 16, right, middle + 16), outline=colour, line=1.5, radius=16)
            self.canvas.text((x + right) / 2, middle, label, SMALL, colour, anchor="mm")

    def verdict(self, chosen: bool, true: bool) -> tuple[str, str]:
        """Return the tag behind a choice and its colour."""
        if chosen and self.case.right is not None:
            return ("right", TRUTH) if self.case.right else ("wrong", WRONG)
        if chosen:
            return "answer", EVIDENCE
        return ("true answer", TRUTH) if true else ("", "")

    def proof(self, y: float) -> float:
        """Draw the verdict with its numbers, and the notes."""
        case = self.case
        lines = [(text, MUTED) for text in case.findings] + [(text, WRONG) for text in case.notes]
        if case.verdict is not None:
            lines.insert(0, (case.reason, EVIDENCE if case.verdict.necessary else INK))
        for text, colour in lines:
            y = self.write(y, text, SMALL + 2, colour, bold=colour == EVIDENCE, most=3, line=1.35)
        return y

    def cards(self, y: float) -> tuple[float, dict[int, float]]:
        """Draw the kept frames large, in order of time; return the middle of each card for the lines to the film."""
        case = self.case
        kept = sorted(sorted(case.kept, key=lambda index: -case.kept_scores[index])[:MOST_CARDS])
        more = f"; the {len(kept)} strongest, large" if len(kept) < len(case.kept) else ""
        y = self.write(y, case.looked_at + more, SMALL, MUTED, most=1, line=1.7)
        if not kept:
            return y, {}
        height, width = case.frames[kept[0]].shape[:2]
        room = (self.right - self.left - GAP * (len(kept) - 1)) / len(kept)
        high = min(min(room, CARD_HEIGHT * width / height * 1.35) * height / width, 1.35 * CARD_HEIGHT)
        wide = high * width / height
        anchors = {}
        for index, x in zip(kept, self.spread([self.at(case.times_s[one]) for one in kept], wide), strict=True):
            area = (x, y, x + wide, y + high)
            self.frame(case.frames[index], area)
            for x0, y0, x1, y1 in case.boxes(index):
                self.outline((x + x0 * wide, y + y0 * high, x + x1 * wide, y + y1 * high), EVIDENCE)
            self.stamp(area, clock(case.times_s[index]))
            anchors[index] = x + wide / 2
        return y + high, anchors

    def spread(self, middles: list[float], wide: float) -> list[float]:
        """Return left edges of cards as near above their moments as they fit side by side."""
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
        """Draw all frames, each within its slice of time; kept ones raised and in colour, the others faded."""
        case = self.case
        y += LINK + RAISE if anchors else RAISE
        height, width = case.frames[0].shape[:2]
        slot = (self.right - self.left) / len(case.frames)
        high = min(max(slot * height / width, FILM_HEIGHTS[0]), FILM_HEIGHTS[1])
        for index in sorted(range(len(case.frames)), key=lambda one: one in case.kept_scores):
            kept = index in case.kept_scores
            start, end = (self.at(time) for time in case.slices[index])
            wide = min(end - start, high * width / height)
            middle = min(max(self.at(case.times_s[index]), start + wide / 2), end - wide / 2)
            gap = min(1.5, wide / 8)
            top = y - RAISE if kept else y
            area = (middle - wide / 2 + gap, top, middle + wide / 2 - gap, top + high)
            if index in anchors:
                x = anchors[index]
                bend = [(x, top - LINK), (x, top - LINK + 18), (middle, top - 8), (middle, top)]
                self.canvas.line(bend, EVIDENCE, 2)
            self.frame(case.frames[index], area, dim=0.0 if kept else 0.55, radius=3)
            if kept:
                self.canvas.box(area, outline=EVIDENCE, line=min(3.0, max(1.0, wide / 12)), radius=3)
        return y + high

    def timeline(self, y: float) -> float:
        """Draw the axis with ticks, and under it the predicted and the annotated spans with their seconds."""
        case = self.case
        y = self.axis(y, self.left, self.right, axis_ticks(case.end_s, 14))
        for name, spans, colour in (
            ("evidence", case.evidence.spans, EVIDENCE),
            ("annotated", case.true_spans, TRUTH),
        ):
            if spans:
                bars = [(self.at(span[0]), self.at(span[1])) for span in spans]
                self.track(y + 9, self.left, self.right, bars, colour)
                y = self.write(y + 22, f"{name} {spans_in_words(spans)}", SMALL, colour, most=2) + 6
        return y
