"""Learning curves of several runs as one picture: training loss and validation, each over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hf_causal_video.viewer.canvas import FAINT, INK, MUTED, Canvas, write_png

WIDTH = 900
PANEL_HEIGHT = 260
MARGIN = 64
LEGEND_LINE = 22
COLOURS = ("#0b7a75", "#e8590c", "#1c7ed6", "#c92a2a", "#7048e8", "#2b8a3e", "#d6336c", "#98a2b3")
SMOOTHING = 20  # points of a curve after averaging neighbours, if there are many more
Points = list[tuple[float, float]]
Log = Sequence[Mapping[str, float]]  # lines of a training log


def save_curves(logs: Mapping[str, Log], path: str | Path, font_path: str | None = None) -> None:
    """Draw the learning curves of runs and save them as PNG.

    Args:
        logs: lines of `training_log.jsonl` by name of the run.
        path: file to write.
        font_path: see `Canvas`.
    """
    validation = _validation_metric(logs)
    # the losses of two methods have different terms; the term of the answers is the one they share
    shared = all(any("loss_answer" in line for line in log) for log in logs.values())
    key = "loss_answer" if shared else "loss"
    title = "loss of the answers in training" if shared else "training loss"
    panels = [(title, {name: _points(log, key, smooth=True) for name, log in logs.items()})]
    if validation is not None:
        title = validation.removeprefix("eval_") + " on validation"
        panels.append((title, {name: _points(log, validation) for name, log in logs.items()}))
    height = len(panels) * PANEL_HEIGHT + len(logs) * LEGEND_LINE + 24
    canvas = Canvas(WIDTH, height, font_path)
    for place, (title, curves) in enumerate(panels):
        _draw_panel(canvas, place * PANEL_HEIGHT, title, curves)
    top = len(panels) * PANEL_HEIGHT + 8
    for place, name in enumerate(logs):
        y = top + place * LEGEND_LINE
        canvas.line([(MARGIN, y + 8), (MARGIN + 28, y + 8)], COLOURS[place % len(COLOURS)], 3)
        canvas.text(MARGIN + 38, y, canvas.wrap(name, 14, WIDTH - MARGIN - 60, most=1)[0], 14)
    write_png(path, canvas.finish())


def _validation_metric(logs: Mapping[str, Log]) -> str | None:
    """Accuracy if every run validated it, else the first metric that some run validated."""
    names = [key for log in logs.values() for line in log for key in line if key.startswith("eval_")]
    return "eval_accuracy" if "eval_accuracy" in names else next(iter(names), None)


def _points(log: Log, key: str, smooth: bool = False) -> Points:
    points = [(float(line["step"]), float(line[key])) for line in log if key in line and "step" in line]
    size = len(points) // (2 * SMOOTHING)
    if not smooth or size < 2:
        return points
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in block) / len(block), sum(y for _, y in block) / len(block)) for block in blocks]


def _draw_panel(canvas: Canvas, top: float, title: str, curves: Mapping[str, Points]) -> None:
    left, right, upper, lower = MARGIN, WIDTH - 24, top + 40, top + PANEL_HEIGHT - 34
    canvas.text(left, top + 12, title, 15, INK, bold=True)
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    if not xs:
        canvas.text(left, upper, "nothing logged", 13, MUTED)
        return
    start, end = min(xs), max(xs)
    low, high = min(ys), max(ys)
    if low == high:
        low, high = low - 1, high + 1
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = lower - share * (lower - upper)
        canvas.line([(left, y), (right, y)], FAINT)
        canvas.text(left - 8, y, f"{low + share * (high - low):.3g}", 12, MUTED, anchor="rm")
    canvas.text(left, lower + 8, f"step {start:.0f}", 12, MUTED)
    canvas.text(right, lower + 8, f"{end:.0f}", 12, MUTED, anchor="ra")
    span = max(end - start, 1.0)
    for place, points in enumerate(curves.values()):
        line = [
            (left + (x - start) / span * (right - left), lower - (y - low) / (high - low) * (lower - upper))
            for x, y in points
        ]
        colour = COLOURS[place % len(COLOURS)]
        if len(line) > 1:
            canvas.line(line, colour, 2)
        for x, y in line if len(line) <= SMOOTHING else []:
            canvas.box((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=colour, radius=2.5)
