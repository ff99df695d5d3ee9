"""Bad input, and what it is held to: a result that satisfies its law, or one of our errors, no bare exception."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from hf_causal_video.utils.errors import CausalVideoError

TEXTS = st.sampled_from(["", " ", "a", "0", "-1", "1.5", "nan", "true", "[]", "../x", "\x00", "\ud800", "é", "a" * 99])
NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 2**31, 2**63, -(2**63), 10**400, 0.0, 0.5, -0.5, 1e-300, 1e300]) | (
    st.sampled_from([float("nan"), float("inf"), float("-inf")])
)
JUNK = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | NUMBERS
        | TEXTS
        | st.sampled_from([[], {}, [None], [[]], [0, 1], [0.5, "x"], {"a": 1}, {"": None}, [[[[1]]]]])
        | st.builds(list, st.lists(st.none() | NUMBERS | TEXTS, max_size=4))
    )
)


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[bool, Any]:
    """Whether a call was refused by one of our errors, and what it gave otherwise; any other exception passes on."""
    try:
        return False, call(*args, **kwargs)
    except CausalVideoError as error:
        assert error.what and str(error.fix).strip() and "; expected " in str(error), error
        return True, error


@st.composite
def mutated(draw: Any, tree: Any, junk: st.SearchStrategy = JUNK, most: int = 3) -> Any:
    """A nested value of lists and mappings in which up to `most` places are replaced, left out or doubled."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(0, most))):
        parents = list(_places(tree))
        if not parents or draw(st.integers(0, 30)) == 30:
            return deepcopy(draw(junk))
        parent, key = draw(st.sampled_from(parents))
        what = draw(st.sampled_from(["replace", "replace", "replace", "drop", "double"]))
        if what == "replace":
            parent[key] = deepcopy(draw(junk))
        elif what == "drop":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, deepcopy(parent[key]))
        else:
            parent[draw(TEXTS)] = deepcopy(parent[key])
    return tree


@st.composite
def damaged(draw: Any, data: bytes, most: int = 4) -> bytes:
    """Bytes of which some are replaced, put in or left out, and which may be cut off."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, len(found)))
        found[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.integers(0, 4)) == 0 else found)


def _keys(tree: Any) -> list[Any]:
    return list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []


def _places(tree: Any) -> Any:
    for key in _keys(tree):
        yield tree, key
        yield from _places(tree[key])
