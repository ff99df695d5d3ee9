"""Times, scores and verdicts in words: the same in shell, picture, page and app."""

from collections.abc import Sequence

from hf_causal_video.models.verdict import Verdict

CLOCK_FROM_S = 120.0  # longer times are written as minutes and seconds
SPARSE_S = 10.0  # a clip that is looked at less often than this says so
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600, 36000, 1e9)  # between ticks
STEPS = tuple(size * 10**power for power in range(9) for size in (1, 2, 5))


def clock(time_s: float) -> str:
    """A time in words: seconds with one decimal, minutes and seconds from two minutes on.

    Example:
        >>> clock(7.25), clock(125.4), clock(3725)
        ('7.2 s', '2:05', '1:02:05')
    """
    if time_s < CLOCK_FROM_S:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def spans_in_words(spans: Sequence[Sequence[float]]) -> str:
    """Spans in order of time.

    Example:
        >>> spans_in_words([(8, 10), (2, 6.5)])
        '2.0 to 6.5 s, 8.0 to 10.0 s'
    """
    parts = []
    for start, end in sorted((float(span[0]), float(span[1])) for span in spans):
        first = f"{start:.1f}" if end < CLOCK_FROM_S else clock(start)
        parts.append(f"{first} to {clock(end)}")
    return ", ".join(parts)


def axis_ticks(length: float, most: int, in_seconds: bool = True) -> list[tuple[float, str]]:
    """Place round numbers on an axis: places in [0, 1] and labels, the last of which carries the unit.

    Args:
        length: of the axis, in seconds or frames.
        most: about how many.
        in_seconds: label seconds, and minutes where ticks lie 15 s apart or more; otherwise whole frames.

    Example:
        >>> axis_ticks(8, 4), axis_ticks(60, 2)[1], axis_ticks(10, 2, in_seconds=False)[1]
        ([(0.0, '0'), (0.25, '2'), (0.5, '4'), (0.75, '6'), (1.0, '8 s')], (0.5, '0:30'), (0.5, '5'))
    """
    step = next(size for size in (STEPS_S if in_seconds else STEPS) if length / size <= most)
    values = [number * step for number in range(int(length / step + 1e-6) + 1)]
    if not in_seconds or step < 15:
        labels = [f"{value:g}" for value in values]
        labels[-1] += " s" if in_seconds else ""
    else:
        labels = [f"{int(value) // 60}:{int(value) % 60:02d}" for value in values]
    return [(value / length, label) for value, label in zip(values, labels, strict=True)]


def percent(share: float) -> str:
    """A probability as percent with three digits at most: what is not certain is not called 100 %.

    Example:
        >>> percent(0.6), percent(0.0712), percent(0.9996), percent(1.0), percent(0.0004)
        ('60.0 %', '7.1 %', '99.9 %', '100 %', '0.04 %')
    """
    value = 100 * min(max(share, 0.0), 1.0)
    if value == 0 or value == 100:
        return f"{value:.0f} %"
    if value < 0.095:
        return f"{value:.2f} %" if value >= 0.005 else "< 0.01 %"
    return f"{min(value, 99.9):.1f} %"


def pace_in_words(times_s: Sequence[float]) -> str:
    """How often a long clip was looked at; nothing for a clip that is looked at often.

    Example:
        >>> pace_in_words([37.5, 112.5, 187.5]), pace_in_words([0.5, 1.5])
        ('looked once every 75 s', '')
    """
    if len(times_s) < 2:
        return ""
    pace = (float(times_s[-1]) - float(times_s[0])) / (len(times_s) - 1)
    return f"looked once every {pace:.0f} s" if pace >= SPARSE_S else ""


def replaced_in_words(letters: str) -> str:
    """Say that a picture holds question marks in the place of letters.

    Example:
        >>> replaced_in_words("中")
        '1 letter is written as a question mark, as no font here has it; name one by --font'
    """
    if len(letters) == 1:
        return "1 letter is written as a question mark, as no font here has it; name one by --font"
    return f"{len(letters)} letters are written as question marks, as no font here has them; name one by --font"


def reason_in_words(verdict: Verdict | None, spans: Sequence[Sequence[float]]) -> str:
    """The line under an answer; "because of" only where the answer falls without its evidence.

    Example:
        >>> reason_in_words(Verdict(necessary=True), [(2, 6)]), reason_in_words(Verdict(necessary=False), [(2, 6)])
        ('because of 2.0 to 6.0 s', 'looked at 2.0 to 6.0 s, also answered without these frames')
    """
    seconds = spans_in_words(spans) or "frames of unknown time"
    if verdict is not None and verdict.necessary:
        return f"because of {seconds}"
    without = verdict is not None and verdict.necessary is False
    return f"looked at {seconds}" + (", also answered without these frames" if without else "")


def verdict_in_words(verdict: Verdict, row: int, score: float) -> list[str]:
    """Say what asking again has shown: a sentence for the evidence alone, one for the clip without it.

    Args:
        verdict: of the answer.
        row: place of the answer among the scores.
        score: its probability from the whole clip.

    Example:
        >>> verdict_in_words(Verdict(True, None, {"run": 0.8, "sit": 0.2}, answer_only="run"), 0, 0.9)[0]
        'From the evidence alone: 90.0 % to 80.0 %, the answer stays.'
    """
    removed = f" ({spans_in_words(verdict.removed_s)})" if verdict.removed_s else ""
    changed = None if verdict.necessary is None else not verdict.necessary
    views = (
        ("From the evidence alone", verdict.scores_only, verdict.answer_only, verdict.sufficient),
        (f"With the evidence removed{removed}", verdict.scores_without, verdict.answer_without, changed),
    )
    lines = []
    for words, scores, answer, stays in views:
        if scores is None:
            lines.append(f"{words}: not asked, no frame is left.")
            continue
        values = list(scores.values())
        turn = "the answer stays" if stays else f"the answer becomes “{answer}” ({percent(max(values))})"
        lines.append(f"{words}: {percent(score)} to {percent(values[row])}, {turn}.")
    return lines
