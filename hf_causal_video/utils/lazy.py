"""Names of a package that are imported on first use (PEP 562)."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Build `__getattr__`, `__dir__` and `__all__` of a package whose names live in submodules.

    Why: importing one name of a package must not import all of its files.

    Args:
        package: `__name__` of the package.
        homes: submodule of each public name, relative to the package.

    Example:
        >>> get, _, names = lazy_names("hf_causal_video.utils", {"require": "errors"})
        >>> get("require").__name__, names
        ('require', ['require'])
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    names = sorted(homes)
    return __getattr__, lambda: names, names
