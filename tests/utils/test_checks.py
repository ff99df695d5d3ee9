"""Laws of the shared checks: what passes comes back unchanged, what does not is named with what was expected."""

import math

import numpy as np
import pytest

from hf_causal_video.utils.checks import (
    check_choice,
    check_fields,
    check_file,
    check_number,
    check_text,
    check_whole,
    is_list,
    is_number,
    is_text,
    is_whole,
)
from hf_causal_video.utils.errors import CausalVideoError

NO_NUMBER = [True, np.True_, None, "3", [3], math.nan, math.inf, np.float64("nan"), 1j]


@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda value: type(value).__name__)
def test_what_is_not_a_number_is_refused_by_its_name(value):
    assert not is_number(value) and not is_whole(value)
    for check in (check_number, check_whole):
        with pytest.raises(CausalVideoError, match="invalid --rate: found"):
            check("--rate", value)


@pytest.mark.parametrize("value", [1, np.int64(1), 1.0, np.float32(1)])
def test_numbers_come_back_as_they_are(value):
    assert check_number("--rate", value, 1, 1) is value
    assert is_whole(value) == (not isinstance(value, float | np.floating))


def test_ends_of_a_range_are_in_or_out_as_said():
    for value, fits in [(0, False), (1e-9, True), (1, True), (1.1, False)]:
        if fits:
            assert check_number("rho", value, most=1, above=0) == value
        else:
            with pytest.raises(CausalVideoError, match="expected a number above 0 and of at most 1"):
                check_number("rho", value, most=1, above=0)
    assert check_whole("--limit", 1) == 1 and check_whole("--limit", 7, 0, 7) == 7
    with pytest.raises(CausalVideoError, match="found 8; expected a whole number from 0 to 7"):
        check_whole("--limit", 8, 0, 7)


def test_choices_texts_rows_and_files(tmp_path):
    assert check_choice("order", "time", ["time", "score"]) == "time"
    for wrong in ("up", None, ["time"], {}):
        with pytest.raises(CausalVideoError, match="unknown order: found .*; expected one of time, score"):
            check_choice("order", wrong, ["time", "score"])
    assert check_text("question", "why?") == "why?"
    for wrong in ("", "  ", None, 3, b"why", "\ud800"):
        with pytest.raises(CausalVideoError, match="invalid question"):
            check_text("question", wrong)
    assert check_fields("row 1", {"a": 1, "b": 2}, ["a"])["b"] == 2
    with pytest.raises(CausalVideoError, match="invalid options: found a int; expected a mapping"):
        check_fields("options", 3, ())
    with pytest.raises(CausalVideoError, match="invalid row 1: found no b; expected the fields a, b"):
        check_fields("row 1", {"a": 1}, ["a", "b"])
    with pytest.raises(CausalVideoError, match="found a list"):
        check_fields("row 1", ["a"], ["a"])
    with pytest.raises(CausalVideoError, match="missing table: found no .*table.csv"):
        check_file("table", tmp_path / "table.csv")
    (tmp_path / "table.csv").touch()
    assert check_file("table", str(tmp_path / "table.csv")) == tmp_path / "table.csv"


def test_kinds():
    assert not is_number(10**400), "no float holds it"
    assert is_text("é") and not is_text("\ud800") and not is_text(b"a")
    assert is_list([1]) and is_list((1,)) and is_list(np.ones(2)) and not is_list("ab") and not is_list({"a": 1})
