"""From answers to pictures that let anyone check them, and to tests of whether the evidence mattered.

Names are imported when they are first used: the pictures need Pillow (the extra `viewer`), the rest does not.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "EvidenceCase": "case",
    "RelationCase": "relation_case",
    "draw_relations": "relations",
    "draw_stress": "stress_picture",
    "draw_strip": "strip",
    "report_html": "report",
    "save_relations": "relations",
    "save_stress": "stress_picture",
    "save_strip": "strip",
    "stress_table": "stress_report",
    "stress_test": "stress",
    "write_report": "report",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
