"""Modules of the user that register backbones, methods or tasks, imported by name before anything is loaded."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError

HELP = "import this module (or .py file) first: own backbones and methods register themselves in it; may be repeated"


def add_import_argument(parser: ArgumentParser) -> None:
    """Add `--import MODULE` to a parser; its values are the list `imports`, or None."""
    parser.add_argument("--import", dest="imports", metavar="MODULE", action="append", help=HELP)


def import_modules(names: Sequence[str] | None) -> None:
    """Import modules by name, or by path where the name ends in `.py`.

    Args:
        names: modules, those of the current folder too; None for none.

    Raises:
        CausalVideoError: there is no such module, or its own code raises.

    Example:
        >>> import_modules(["json"])
        >>> import_modules(["no_such_module"])
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: --import no_such_module: ...
    """
    if not names:
        return
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        try:
            _import_file(Path(name)) if name.endswith(".py") else import_module(name)
        except Exception as error:  # the user's own code may raise anything
            raise CausalVideoError(
                f"--import {name}",
                found=f"{type(error).__name__}: {error}",
                expected="a module that can be imported, or a .py file",
                fix="run from the folder that holds it, or correct the module",
            ) from error


def _import_file(path: Path) -> None:
    if path.stem in sys.modules:
        return
    spec = spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # found again by name, as pickle needs it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
