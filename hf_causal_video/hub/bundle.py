"""The code of one method as flat files, so that its models load where only torch and transformers are installed.

Why: `trust_remote_code` copies files of one folder alone, and the house has rooms. So a push follows the imports of
the classes that travel, writes every module into one folder with `from hf_causal_video.causal.topk import x` turned
into `from .causal_topk import x`, and refuses whatever would be missing there.
"""

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from hf_causal_video.utils.errors import CausalVideoError, require
from hf_causal_video.utils.version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
NAME = PACKAGE.name
TRAVELS = {"causal", "backbones", "models", "utils"}  # folders that may leave the package
LIBRARIES = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors", "yaml"}  # transformers needs the last
ROOT = f"{NAME}.models"  # its __init__ registers every method, which remote code does in its own way
OWN_NAME = ("configuration_", "modeling_", "processing_")


def flat_name(module: str) -> str:
    """Name of a module's flat file, without its suffix.

    Example:
        >>> flat_name("hf_causal_video.causal.topk"), flat_name("hf_causal_video.models.transtr.modeling_transtr")
        ('causal_topk', 'modeling_transtr')
    """
    parts = module.split(".")[1:]
    return parts[-1] if parts[-1].startswith(OWN_NAME) else "_".join(parts)


def bundle(config: type, model: type, processor: type, parts: Iterable[type] = ()) -> dict[str, str]:
    """Write the classes of a method and everything of the package that they need as flat files.

    Args:
        config, model, processor: the three classes.
        parts: classes that a loaded model consists of. One that no import reaches is found by name (a registered
            backbone): the model's file then imports its module, which registers it.

    Returns:
        Text of each file by its name, `modeling_x.py` and so on.

    Raises:
        CausalVideoError: a module that may not travel, a library beyond torch and transformers, a name that no file
            defines, two modules of one flat name.

    Example:
        >>> from hf_causal_video.models import METHODS
        >>> method = METHODS["transtr"]
        >>> files = bundle(method.config, method.model, method.processor)
        >>> {"configuration_transtr.py", "modeling_transtr.py", "causal_topk.py"} <= set(files)
        True
    """
    origin: dict[str, str] = {}
    files: dict[str, str] = {}

    def follow(waiting: list[str]) -> None:
        while waiting:
            module = waiting.pop()
            name = flat_name(module)
            require(
                origin.setdefault(name, module) == module,
                "two modules of one flat name",
                found=f"{origin[name]} and {module}, both {name}.py",
                expected="names that differ",
                fix="rename one of the files",
            )
            if f"{name}.py" not in files:
                files[f"{name}.py"], needed = _flatten(module)
                waiting += needed

    follow([cls.__module__ for cls in (config, model, processor)])
    for part in sorted(set(parts), key=lambda cls: cls.__module__):
        library = part.__module__.split(".")[0]
        if library not in LIBRARIES and f"{flat_name(part.__module__)}.py" not in files:
            follow([part.__module__])
            line = f"from .{flat_name(part.__module__)} import {part.__name__}  # noqa: E402, F401  registers itself\n"
            files[f"{flat_name(model.__module__)}.py"] += line
    for name, text in files.items():
        _check(name, text, files)
    return dict(sorted(files.items()))


def auto_map(config: type, model: type, processor: type, tasks: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the flat file that holds the class of each Auto class.

    Args:
        config, model, processor: the classes of one method.
        tasks: further Auto classes that give the model, such as "AutoModelForMultipleChoice".
    """
    classes = {"AutoConfig": config, "AutoModel": model, **dict.fromkeys(tasks, model), "AutoProcessor": processor}
    return {auto: f"{flat_name(cls.__module__)}.{cls.__name__}" for auto, cls in classes.items()}


def _source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _flatten(module: str) -> tuple[str, list[str]]:
    """The text of a module with its imports flat, and the modules of the package that it imports."""
    parts = module.split(".")
    path = _source(module)
    if parts[0] != NAME or len(parts) < 2 or parts[1] not in TRAVELS or path is None or module == ROOT:
        raise _refused(module, f"an import of {module}", f"imports of {', '.join(sorted(TRAVELS))}, by module")
    for depth in range(2, len(parts)):  # a parent's __init__ runs before the module does; as flat files it would not
        parent = ".".join(parts[:depth])
        if parent != ROOT and not _only_names(_source(parent)):
            raise _refused(
                module, f"{parent}/__init__.py does more than import names", "registration in the module of the class"
            )
    text = path.read_text(encoding="utf-8")
    needed = []
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            wanted = str(node.module)
            line = node.lineno - 1
            needed.append(wanted)
            flat = f"from .{flat_name(wanted)} import"
            lines[line] = re.sub(rf"from\s+{re.escape(wanted)}\s+import", flat, lines[line])
    origin = f"{path.relative_to(PACKAGE.parent).as_posix()} of hf-causal-video {__version__}, Apache-2.0"
    return f"# {origin}; written flat by its push.\n{''.join(lines)}", needed


def _only_names(path: Path | None) -> bool:
    """Tell whether a module holds nothing but a docstring, imports and `__all__`, lazy names included."""
    body = [] if path is None else ast.parse(path.read_text(encoding="utf-8")).body
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        or (isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("lazy_names(__name__, {"))
        for node in body
    )


def _check(name: str, text: str, files: dict[str, str]) -> None:
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            target = files.get(f"{node.module}.py") if node.level == 1 else None
            missing = [a.name for a in node.names if target is None or a.name not in _defined(target)]
            if missing:
                raise _refused(name, f"{', '.join(missing)} from .{node.module}", "names that its file defines")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            outside = {n.split(".")[0] for n in names} - LIBRARIES - set(sys.stdlib_module_names)
            if outside:
                raise _refused(
                    name, f"imports of {', '.join(sorted(outside))}", f"only {', '.join(sorted(LIBRARIES))}"
                )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if re.match(rf"{NAME}\.\w", node.value):
                raise _refused(name, f"the module {node.value!r} named in a string", "import statements")


def _defined(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


def _refused(where: str, found: str, expected: str) -> CausalVideoError:
    return CausalVideoError(
        f"{where} cannot travel as remote code",
        found=found,
        expected=expected,
        fix="move what is needed into causal/, backbones/ or models/, imported by the name of its module",
    )
