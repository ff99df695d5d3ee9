"""One picture for the relations of a clip: objects and relations on its frames, and when each relation holds.

Why: a list of triplets with scores cannot be judged; a picture in which each triplet has its two boxes and its stretch
of time can, in seconds. From top to bottom: moments that show the best relations, large; under them a line for each
relation, its objects in the colours of their boxes, on one axis of time.
"""

from pathlib import Path

from PIL import Image

from hf_causal_video.utils.errors import require
from hf_causal_video.viewer.canvas import INK, MUTED, PLAIN, Canvas, write_png
from hf_causal_video.viewer.relations import DrawnObject, DrawnRelation, RelationCase

MARGIN, GAP = 48, 16
HEADING, BODY, SMALL = 34, 22, 19  # text sizes in pixels at width 1600
CARDS, LINES = 4, 3  # moments, and relations written under each
ROW, CHIP = 38, 26
CARD_HEIGHT = 380


def draw_relations(case: RelationCase, width: int = 1600, font_path: str | None = None) -> Image.Image:
    """Draw the relations of a clip.

    Args:
        case: relations and frames.
        width: width in pixels, at least 1000; the height follows from the content.
        font_path: a font file for scripts that Pillow's own font does not have.

    Raises:
        CausalVideoError: a width too small to read.

    Example:
        >>> relation = {"triplet": ["dog", "chase", "cat"], "score": 0.9, "duration": [2, 4],
        ...             "sub_traj": [[0, 0, 9, 9]] * 2, "obj_traj": [[20, 0, 30, 9]] * 2}
        >>> draw_relations(RelationCase([relation], frame_size=(40, 20))).width
        1600
    """
    require(width >= 1000, "picture too narrow", found=f"{width} px", expected="at least 1000", fix="try width=1600")
    height = round(_Picture(case, width, 10, font_path).draw())
    picture = _Picture(case, width, height, font_path)
    picture.draw()
    return picture.canvas.finish()


def save_relations(case: RelationCase, path: str | Path, width: int = 1600, font_path: str | None = None) -> Path:
    """Write the picture of `draw_relations` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_relations(case, width, font_path))


class _Picture:
    """Draws from top to bottom and keeps the height reached; a first pass on a tiny canvas measures."""

    def __init__(self, case: RelationCase, width: int, height: int, font_path: str | None):
        self.case, self.canvas = case, Canvas(width, height, font_path)
        self.left, self.right = MARGIN, width - MARGIN
        self.measuring = height == 10

    def draw(self) -> float:
        """Draw everything; returns the height needed."""
        y = MARGIN - 8.0
        if self.case.title:
            self.canvas.text(self.left, y, self.case.title, SMALL, MUTED)
            y += SMALL + 10
        self.canvas.text(self.left, y, summary(self.case), HEADING, bold=True)
        y += HEADING * 1.22 + 22
        moments = self.case.best_moments(CARDS)
        y = self.cards(y, moments) + 34
        return self.timeline(y, moments) + MARGIN - 14

    def cards(self, y: float, moments: list[int]) -> float:
        """The moments side by side, with boxes, and what holds at each written under it."""
        canvas, shape = self.canvas, self.case.shape
        room = (self.right - self.left - GAP * (len(moments) - 1)) / len(moments)
        wide = min(room, CARD_HEIGHT * shape[0] / shape[1])
        high = wide * shape[1] / shape[0]
        bottom = y
        for place, moment in enumerate(moments):
            x = self.left + place * (wide + GAP)
            if not self.measuring:
                canvas.picture(self.case.picture(moment), (x, y, x + wide, y + high), radius=6)
            self.outlines(moment, (x, y, wide, high))
            stamp = self.case.label_of(moment)
            plate = (x + 8, y + high - 34, x + 24 + canvas.width_of(stamp, SMALL), y + high - 8)
            canvas.box(plate, fill=INK, radius=6)
            canvas.text((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2, stamp, SMALL, "#ffffff", anchor="mm")
            line = y + high + 12
            active = self.case.active(moment)
            for one in active[:LINES]:
                self.sentence(one, x, line, wide)
                line += ROW - 4
            if len(active) > LINES:
                canvas.text(x, line, f"and {len(active) - LINES} more", SMALL, MUTED)
                line += ROW - 8
            bottom = max(bottom, line)
        return bottom

    def outlines(self, moment: int, area: tuple[float, float, float, float]) -> None:
        """The boxes of the objects on a card, the smallest and the numbers on top."""
        x, y, wide, high = area
        positions = []
        for one in self.case.present(moment):
            x0, y0, x1, y1 = one.boxes[moment]
            positions.append((one, (x + x0 * wide, y + y0 * high, x + x1 * wide, y + y1 * high)))
        positions.sort(key=lambda place: -(place[1][2] - place[1][0]) * (place[1][3] - place[1][1]))
        for one, inner in positions:
            self.canvas.box((inner[0] - 1.5, inner[1] - 1.5, inner[2] + 1.5, inner[3] + 1.5), None, "#ffffff", 6, 3)
            self.canvas.box(inner, outline=one.colour, line=3, radius=3)
        for one, inner in positions:
            top = inner[1]
            if inner[3] - inner[1] < 2 * CHIP:  # next to a small box, so that something of it is seen
                top = inner[1] - CHIP - 3 if inner[1] - CHIP - 3 > y else inner[3] + 3
            self.chip(one, min(inner[0], x + wide - CHIP), min(top, y + high - CHIP))

    def chip(self, one: DrawnObject, x: float, y: float) -> float:
        """The number of an object in its colour; returns its width."""
        wide = max(CHIP, self.canvas.width_of(str(one.number), SMALL) + 12)
        self.canvas.box((x, y, x + wide, y + CHIP), fill=one.colour, radius=5)
        self.canvas.text(x + wide / 2, y + CHIP / 2, str(one.number), SMALL, "#ffffff", bold=True, anchor="mm")
        return wide

    def sentence(self, one: DrawnRelation, x: float, y: float, width: float) -> None:
        """Subject, predicate and object in words, each object behind its number, within a width."""
        canvas, end = self.canvas, x + width
        parts = ((one.subject, one.subject.label), (None, one.predicate), (one.object, one.object.label))
        for thing, words in parts:
            if thing is not None:
                if x + CHIP > end:
                    return
                x += self.chip(thing, x, y) + 6
            words = words.replace("_", " ") if thing is None else words
            lines = canvas.wrap(words, BODY, max(end - x, 1), most=1) if end - x > 30 else []
            for text in lines:
                canvas.text(x, y + CHIP / 2, text, BODY, INK, bold=thing is None, anchor="lm")
                x += canvas.width_of(text, BODY) + 12

    def timeline(self, y: float, moments: list[int]) -> float:
        """A line for each relation: who, what, whom, when, and how sure."""
        case, canvas = self.case, self.canvas
        if not case.shown:
            return y
        texts = [(one.subject.label, one.predicate, one.object.label) for one in case.shown]
        widest = max(sum(canvas.width_of(word, BODY) for word in text) for text in texts) + 2 * (CHIP + 6) + 48
        start = self.left + min(widest, 0.42 * (self.right - self.left))
        end = self.right - 84
        top = y
        for one in case.shown:
            self.sentence(one, self.left, y + (ROW - CHIP) / 2, start - self.left - 16)
            canvas.box((start, y + 10, end, y + ROW - 10), fill="#f2f4f7", radius=6)
            for span in one.spans:
                x0, x1 = (start + (end - start) * case.position(frame) for frame in span)
                canvas.box((x0, y + 8, max(x1, x0 + 4), y + ROW - 8), fill=one.subject.colour, radius=5)
            if one.score is not None:
                canvas.text(self.right, y + ROW / 2, f"{one.score:.2f}", BODY - 2, INK, anchor="rm")
            y += ROW
        for moment in moments:
            x = start + (end - start) * case.position(moment + 0.5)
            canvas.line([(x, top - 6), (x, y + 4)], INK, 1.5)
        canvas.line([(start, y + 6), (end, y + 6)], PLAIN, 1.5)
        for place, label in case.ticks(10):
            x = start + (end - start) * place
            canvas.line([(x, y + 2), (x, y + 10)], PLAIN, 1.5)
            canvas.text(x, y + 15, label, SMALL, MUTED, anchor="ma" if x < end - 24 else "ra")
        if case.times_s is None:
            canvas.text(self.left, y + 15, "frames", SMALL, MUTED)
        return y + SMALL + 26


def summary(case: RelationCase) -> str:
    """How many relations there are, and between how many objects, in words."""
    shown, objects = len(case.shown), len(case.objects)
    if not shown:
        return "No relation was found"
    least = len(case.relations) > shown and shown == case.most
    return f"{'The best ' if least else ''}{shown} relation{'s' * (shown != 1)} between {objects} objects"
