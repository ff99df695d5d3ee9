"""Names that are imported on first use (PEP 562), and calls that wait for another library's import.

Why: importing one function of the package, or asking the shell for `--help`, must not cost the seconds that torch and
transformers take to import.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Build `__getattr__`, `__dir__` and `__all__` of a package whose names live in submodules.

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


class LazyClass(type):
    """Stand-in for a class that is imported when it is first used: called, asked for an attribute, or for instances.

    Args:
        name: name of the class.
        module: module that defines it.
        known: attributes that can be read without the import.

    Example:
        >>> Error = LazyClass("CausalVideoError", "hf_causal_video.utils.errors")
        >>> isinstance(Error("x", found=1, expected=2, fix="3"), Error), Error.__name__
        (True, 'CausalVideoError')
    """

    def __new__(mcs, name: str, module: Any, namespace: dict[str, Any] | None = None, **known: Any) -> Any:
        if namespace is not None:  # `class Sub(Lazy)`: a subclass of the class itself
            bases = tuple(base.resolve() if isinstance(base, LazyClass) else base for base in module)
            return type(bases[0])(name, bases, namespace)
        return super().__new__(mcs, name, (), {"__module__": module, **known})

    def __init__(cls, name: str, module: str, **known: Any):
        super().__init__(name, (), {})

    def resolve(cls) -> type:
        """Import the class."""
        return getattr(import_module(cls.__module__), cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.resolve(), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.resolve()(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.resolve())


def after_import(trigger: str, module: str, function: str) -> None:
    """Call a function of one of our modules when another module has been imported; now if it has been already.

    Args:
        trigger: module of another library.
        module: module of this package that holds the function; imported no earlier than the trigger.
        function: its name; called without arguments.
    """
    if trigger in sys.modules:
        getattr(import_module(module), function)()
    else:
        sys.meta_path.insert(0, _AfterImport(trigger, lambda: getattr(import_module(module), function)()))


class _AfterImport(MetaPathFinder):
    """Finder that leaves finding to the others and adds one call behind the execution of one module."""

    def __init__(self, trigger: str, call: Callable[[], None]):
        self.trigger = trigger
        self.call = call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.trigger:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self.call()

            spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec
