"""The checks that many doors share, one line each: what a value is, and one refusal per kind of fault.

A check raises CausalVideoError and returns the value it was given, so that it can stand where the value is used. What
only one door asks is spelled with `require` there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np

from hf_causal_video.utils.errors import require

Value = TypeVar("Value")


def is_text(value: object) -> TypeGuard[str]:
    """Tell whether a value is a string that can be stored (a lone surrogate cannot)."""
    return isinstance(value, str) and (value.isascii() or _encodes(value))


def is_list(value: object) -> TypeGuard[Sequence]:
    """Tell whether a value is a sequence other than text; an array is one."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number that a float holds; True and False are not."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_whole(value: object, least: int = 0, most: float = math.inf) -> TypeGuard[int]:
    """Tell whether a value is a whole number in a range, both ends included; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]


def check_whole(what: str, value: Value, least: int = 1, most: float = math.inf, *, fix: str = "correct it") -> Value:
    """Check a whole number.

    Args:
        what: the name under which the user passed it.
        value: any value.
        least, most: the ends of the range, both included.
        fix: what the user can do.

    Raises:
        CausalVideoError: another kind of value, or one outside the range.

    Example:
        >>> check_whole("--limit", 0)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: invalid --limit: found 0; expected a whole number of ...
    """
    expected = f"a whole number of at least {least}"
    if most != math.inf:
        expected = f"a whole number from {least} to {most}"
    require(is_whole(value, least, most), f"invalid {what}", found=repr(value), expected=expected, fix=fix)
    return value


def check_number(
    what: str,
    value: Value,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    fix: str = "correct it",
) -> Value:
    """Check a finite number; `least` and `most` are in its range, `above` and `below` are not.

    Raises:
        CausalVideoError: another kind of value, NaN, or one outside the range.

    Example:
        >>> check_number("confidence", 2, above=0, below=1)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: invalid confidence: found 2; expected a number above 0 ...
    """
    limits = {"of at least": least, "above": above, "of at most": most, "below": below}
    words = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit))
    fits = is_number(value) and least <= value <= most and above < value < below
    require(fits, f"invalid {what}", found=repr(value), expected=f"a number {words}".rstrip() or "a number", fix=fix)
    return value


def check_choice(what: str, value: Value, known: Collection, *, fix: str = "name one of them") -> Value:
    """Check that a value is one of those that are known.

    Example:
        >>> check_choice("order", "up", ["score", "time"])
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: unknown order: found 'up'; expected one of score, time. Fix: ...
    """
    is_known = isinstance(value, str | int) and value in known
    require(is_known, f"unknown {what}", found=repr(value), expected=f"one of {', '.join(map(str, known))}", fix=fix)
    return value


def check_text(what: str, value: Value, *, fix: str = "correct it") -> Value:
    """Check a string that is not blank.

    Example:
        >>> check_text("question", None)
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: invalid question: found None; expected text that is not blank...
    """
    fits = is_text(value) and bool(value.strip())
    require(fits, f"invalid {what}", found=repr(value), expected="text that is not blank", fix=fix)
    return value


def check_fields(what: str, row: Value, needed: Iterable[str], *, fix: str = "add what is missing") -> Value:
    """Check that a row is a mapping with certain fields; without any, that it is a mapping.

    Example:
        >>> check_fields("row 3", {"video": "a"}, ["video", "question"])
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: invalid row 3: found no question; expected the fields video, ...
    """
    names = list(needed)
    missing = [name for name in names if name not in row] if isinstance(row, Mapping) else names
    is_row = isinstance(row, Mapping) and not missing
    problem = f"no {', '.join(missing)}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
    expected = f"the fields {', '.join(names)}" if names else "a mapping"
    require(is_row, f"invalid {what}", found=problem, expected=expected, fix=fix)
    return row


def check_file(what: str, path: str | Path, *, fix: str = "check the path") -> Path:
    """Check that a file exists.

    Example:
        >>> check_file("annotation file", "no/such.csv")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: missing annotation file: found no no/such.csv; expected ...
    """
    file = Path(path)
    require(file.is_file(), f"missing {what}", found=f"no {file}", expected="a file that exists", fix=fix)
    return file


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
