"""Import transformers' own test classes, with stand-ins for what their source distribution lacks."""

import sys
from types import ModuleType
from typing import Any

import pytest

from tests.peer.fetch import FOLDER, fetched

# Values that no default has; what `tests/utils/test_configuration_utils.py` of the repository checks a config with.
COMMON: dict[str, Any] = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["BertModel"],
    "problem_type": "regression",
}


class ExportTesterMixin:
    """Stand-in: exporting is tested by our own tests."""


class GenerationTesterMixin:
    """Stand-in: no model here generates."""


def url_to_local_path(url: str, *_: Any, **__: Any) -> str:
    """Stand-in of a cache of the transformers project."""
    return url


LACKING = {
    "transformers_tests.exporters.test_export": {"ExportTesterMixin": ExportTesterMixin},
    "transformers_tests.generation.test_utils": {"GenerationTesterMixin": GenerationTesterMixin},
    "transformers_tests.utils.test_configuration_utils": {"config_common_kwargs": COMMON},
    "fetch_hub_objects_for_ci": {"url_to_local_path": url_to_local_path},
}


def make_importable() -> None:
    """Skip the calling module where the tests were not fetched; else put them, and the stand-ins, on the path."""
    if not fetched():
        reason = "transformers' own tests of the installed version are not here; python -m tests.peer.fetch gets them"
        pytest.skip(reason, allow_module_level=True)
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    for name, content in LACKING.items():
        parent = name.rpartition(".")[0]
        for each in filter(None, (parent, name)):
            sys.modules.setdefault(each, ModuleType(each))
        vars(sys.modules[name]).update(content)
