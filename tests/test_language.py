"""Plain technical English: docstrings, error texts and names that a stranger reads once.

The list is short on purpose. Lines in which a term of the field needs one of these words may stay, up to `LIMIT`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "hf_causal_video"
WORDS = {  # pattern: what to write
    r"\b(is|are|was|be) no\b(?! longer| more)": "invalid, missing, unknown",
    r"\b(is|are) none\b": "missing",
    r"\bmend(s|ed)?\b": "fix",
    r"\bbeside\b": "next to, in addition to",
    r"\bthat there is not\b": "unknown",
    r"\b(hear|heard|hears)\b": "depend on, affect",
    r"\bhanded (over|around)\b": "passed",
    r"\btold\b": "configured, given",
    r"\banew\b": "again",
    r"\bat hand\b": "available",
    r"\bkin\b": "and similar",
}
FIRST = re.compile(r"^(Of|What|Where|Whether|Whose|Anything|Everything) ")
NAMES = {"found", "there", "given", "asked", "own", "mine", "theirs", "told", "places", "rooms"}
LIMIT = 40


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    yield first.value


def odd_lines(path: Path) -> Iterator[str]:
    """Lines of a file that say it in the dialect, each with the plain form."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name = path.relative_to(PACKAGE).as_posix()
    inside: set[int] = set()
    for doc in docstrings(tree):
        inside |= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
        if FIRST.match(str(doc.value).strip()):
            yield f"{name}:{doc.lineno}: begin with a verb or a noun phrase: {str(doc.value).strip()[:80]}"
    for number, line in enumerate(text.splitlines(), start=1):
        prose = line if number in inside or "#" in line else " ".join(re.findall(r'"([^"]*)"', line))
        for pattern, plain in WORDS.items():
            if re.search(pattern, prose):
                yield f"{name}:{number}: {line.strip()[:100]} -> {plain}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES:
            yield f"{name}:{node.lineno}: the name {node.id!r}"


def test_the_package_speaks_plain_english():
    odd = [line for path in sorted(PACKAGE.rglob("*.py")) for line in odd_lines(path)]
    assert len(odd) < LIMIT, "\n".join(odd)


def test_no_formatter_is_switched_off():
    marked = [path.name for path in PACKAGE.rglob("*.py") if "fmt: skip" in path.read_text(encoding="utf-8")]
    assert marked == []
