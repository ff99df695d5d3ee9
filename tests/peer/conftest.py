"""The marker of these tests, and their table of exclusions."""

from pathlib import Path

import pytest

from tests.peer.exclusions import exclusion


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.peer)
            left_out = exclusion(item.name, item.cls.__name__) if getattr(item, "cls", None) else None
            if left_out:
                item.add_marker(pytest.mark.skip(reason=left_out.reason))
