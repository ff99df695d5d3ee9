"""One picture for the relations of a clip: objects and relations on its frames, and when each relation holds.

Why: a list of triplets with scores cannot be judged; a picture in which each triplet has its two boxes and its stretch
of time can, in seconds. From top to bottom: moments that show the best relations, large; under them a line for each
relation, its objects in the colours of their boxes, on one axis of time.
"""

from pathlib import Path

from PIL import Image

from hf_causal_video.viewer.canvas import INK, MUTED, PAPER, Box, write_png
from hf_causal_video.viewer.relations import DrawnObject, DrawnRelation, RelationCase
from hf_causal_video.viewer.sheet import SMALL, Sheet

GAP = 16
HEADING = 34  # text sizes in pixels at width 1600
BODY = 22
CARDS = 4  # moments
LINES = 3  # relations written under each moment
ROW = 38
CHIP = 26
CARD_HEIGHT = 380


def draw_relations(case: RelationCase, width: int = 1600, font_path: str | None = None) -> Image.Image:
    """Draw the relations of a clip.

    Args:
        case: relations and frames.
        width: width in pixels, at least 1000; the height follows from the content.
        font_path: as in `draw_strip`.

    Raises:
        CausalVideoError: a width too small to read.

    Example:
        >>> relation = {"triplet": ["dog", "chase", "cat"], "score": 0.9, "duration": [2, 4],
        ...             "sub_traj": [[0, 0, 9, 9]] * 2, "obj_traj": [[20, 0, 30, 9]] * 2}
        >>> draw_relations(RelationCase([relation], frame_size=(40, 20))).width
        1600
    """
    return _Picture(case, width, font_path).render()


def save_relations(case: RelationCase, path: str | Path, width: int = 1600, font_path: str | None = None) -> Path:
    """Write the picture of `draw_relations` as a PNG file, whole or not at all, and return its path."""
    return write_png(path, draw_relations(case, width, font_path))


class _Picture(Sheet):
    least_width = 1000

    def __init__(self, case: RelationCase, width: int, font_path: str | None):
        super().__init__(width, font_path)
        self.case = case

    def draw(self) -> float:
        """Draw everything; return the height reached."""
        y = self.write(self.top, self.case.title, SMALL, MUTED, most=1, line=1.5)
        y = self.write(y, summary(self.case), HEADING, bold=True, line=1.22) + 22
        moments = self.case.best_moments(CARDS)
        y = self.cards(y, moments) + 34
        return self.timeline(y, moments)

    def cards(self, y: float, moments: list[int]) -> float:
        """Draw the moments side by side, with boxes, and write what holds at each under it."""
        width, height = self.case.shape
        room = (self.right - self.left - GAP * (len(moments) - 1)) / len(moments)
        wide = min(room, CARD_HEIGHT * width / height)
        high = wide * height / width
        bottom = y
        for place, moment in enumerate(moments):
            x = self.left + place * (wide + GAP)
            area = (x, y, x + wide, y + high)
            self.frame(self.case.picture(moment), area)
            self.objects(moment, area)
            self.stamp(area, self.case.label_of(moment))
            line = y + high + 12
            active = self.case.active(moment)
            for one in active[:LINES]:
                self.sentence(one, x, line, wide)
                line += ROW - 4
            if len(active) > LINES:
                self.canvas.text(x, line, f"and {len(active) - LINES} more", SMALL, MUTED)
                line += ROW - 8
            bottom = max(bottom, line)
        return bottom

    def objects(self, moment: int, area: Box) -> None:
        """Draw the boxes of the objects on a card, the smallest and the numbers on top."""
        x, y, right, bottom = area
        wide = right - x
        high = bottom - y
        positions = []
        for one in self.case.present(moment):
            x0, y0, x1, y1 = one.boxes[moment]
            positions.append((one, (x + x0 * wide, y + y0 * high, x + x1 * wide, y + y1 * high)))
        positions.sort(key=lambda place: -(place[1][2] - place[1][0]) * (place[1][3] - place[1][1]))
        for one, inner in positions:
            self.outline(inner, one.colour)
        for one, (x0, y0, _, y1) in positions:
            top = y0
            if y1 - y0 < 2 * CHIP:  # next to a small box, so that something of it is seen
                top = y0 - CHIP - 3 if y0 - CHIP - 3 > y else y1 + 3
            self.chip(one, min(x0, right - CHIP), min(top, bottom - CHIP))

    def chip(self, one: DrawnObject, x: float, y: float) -> float:
        """Draw the number of an object in its colour; return its width."""
        wide = max(CHIP, self.canvas.width_of(str(one.number), SMALL) + 12)
        self.canvas.box((x, y, x + wide, y + CHIP), fill=one.colour, radius=5)
        self.canvas.text(x + wide / 2, y + CHIP / 2, str(one.number), SMALL, PAPER, bold=True, anchor="mm")
        return wide

    def sentence(self, one: DrawnRelation, x: float, y: float, width: float) -> None:
        """Write subject, predicate and object, each object behind its number, within a width."""
        end = x + width
        parts = ((one.subject, one.subject.label), (None, one.words), (one.object, one.object.label))
        for thing, words in parts:
            if thing is not None:
                if x + CHIP > end:
                    return
                x += self.chip(thing, x, y) + 6
            if end - x > 30:
                for text in self.canvas.wrap(words, BODY, end - x, most=1):
                    self.canvas.text(x, y + CHIP / 2, text, BODY, INK, bold=thing is None, anchor="lm")
                    x += self.canvas.width_of(text, BODY) + 12

    def timeline(self, y: float, moments: list[int]) -> float:
        """Draw a line for each relation: who, what, whom, when, and how sure."""
        case = self.case
        if not case.shown:
            return y
        texts = [(one.subject.label, one.words, one.object.label) for one in case.shown]
        widest = max(sum(self.canvas.width_of(word, BODY) for word in text) for text in texts) + 2 * (CHIP + 6) + 48
        start = self.left + min(widest, 0.42 * (self.right - self.left))
        end = self.right - 84

        def at(frame: float) -> float:
            return start + (end - start) * case.position(frame)

        top = y
        for one in case.shown:
            self.sentence(one, self.left, y + (ROW - CHIP) / 2, start - self.left - 16)
            self.track(
                y + ROW / 2, start, end, [(at(first), at(last)) for first, last in one.spans], one.subject.colour
            )
            if one.score is not None:
                self.canvas.text(self.right, y + ROW / 2, f"{one.score:.2f}", BODY - 2, INK, anchor="rm")
            y += ROW
        for moment in moments:
            self.canvas.line([(at(moment + 0.5), top - 6), (at(moment + 0.5), y + 4)], INK, 1.5)
        if case.times_s is None:
            self.canvas.text(self.left, y + 16, "frames", SMALL, MUTED)
        return self.axis(y + 2, start, end, case.ticks(10))


def summary(case: RelationCase) -> str:
    """Say how many relations there are, and between how many objects."""
    shown = len(case.shown)
    if not shown:
        return "No relation was found"
    least = len(case.relations) > shown and shown == case.most
    return f"{'The best ' if least else ''}{shown} relation{'s' * (shown != 1)} between {len(case.objects)} objects"
