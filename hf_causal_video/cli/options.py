"""Options of a verb: a dataclass whose fields carry their help, once for the parser and for the code that runs.

The type of a field says how it is typed: `bool` is a switch, `list[str]` takes one or more words, `tuple[int, int]`
two, `Literal` a choice. The class's docstring is the description that `--help` shows.
"""

import argparse
import inspect
import json
from dataclasses import MISSING, field, fields
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from hf_causal_video.utils.errors import parse_arguments

Options = TypeVar("Options")
FRAME_MODEL = "where the frame network of the checkpoint lies now"  # help of options that several verbs share
OBJECT_MODEL = "where its object network lies now"
FONT = "font file for the picture (default: a font of the system that has the letters)"


def argument(text: str, **keywords: object) -> Any:
    """Declare a positional argument.

    Args:
        text: its help.
        keywords: of `add_argument`, such as metavar.
    """
    return field(metadata={"help": text, "positional": True, **keywords})


def option(text: str, default: object = MISSING, **keywords: object) -> Any:
    """Declare an option `--name`; one without a default must be passed.

    Args:
        text: its help; the default is added to it.
        default: value where it is not passed; a switch that is True by default is called `--no-name`.
        keywords: of `add_argument`, such as metavar, type, choices; `exclusive` names a group of which one may be
            passed.
    """
    return field(default=default, metadata={"help": text, **keywords})


def add_options(parser: argparse.ArgumentParser, options: type, examples: str = "") -> None:
    """Declare the fields of a dataclass as arguments of a parser.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(kw_only=True)
        ... class Wave:
        ...     '''Wave at somebody.'''
        ...     name: str = argument("who")
        ...     times: int = option("how often", 1)
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser, Wave)
        >>> read_options(Wave, parser.parse_args(["Ann", "--times", "2"]))
        Wave(name='Ann', times=2)
    """
    parser.description = inspect.cleandoc(options.__doc__ or "")
    parser.epilog = examples
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for one in fields(options):
        keywords = dict(one.metadata)
        target: argparse._ActionsContainer = parser
        if exclusive := keywords.pop("exclusive", None):
            if exclusive not in groups:
                groups[exclusive] = parser.add_mutually_exclusive_group()
            target = groups[exclusive]
        keywords = _of_type(one.type, one.default) | keywords
        if keywords.pop("positional", False):
            target.add_argument(one.name, **keywords)
            continue
        flag = one.name.replace("_", "-")
        if one.default is MISSING:
            keywords["required"] = True
        elif one.default is True:
            flag = f"no-{flag}"
        else:
            keywords["default"] = one.default
        if not isinstance(one.default, bool | None) and one.default is not MISSING and one.default != "":
            keywords["help"] += " (default: %(default)s)"
        target.add_argument(f"--{flag}", dest=one.name, **keywords)


def json_mapping(text: str) -> dict[str, object]:
    """Read a mapping that is typed as JSON; for `type` of an option."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected JSON such as '{{\"seed\": 1}}'")
    return value


def read_options(options: type[Options], args: argparse.Namespace) -> Options:
    """Put parsed arguments into the dataclass that declared them."""
    values = {one.name: getattr(args, one.name) for one in fields(options)}  # type: ignore[arg-type]
    return options(**values)


def parse_options(options: type[Options], argv: list[str]) -> Options:
    """Parse the arguments of one verb; ends as argparse does where they do not fit."""
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    return read_options(options, parse_arguments(parser, argv))


def _of_type(kind: Any, default: object) -> dict[str, Any]:
    """Keywords of `add_argument` that follow from the type of a field."""
    if get_origin(kind) is UnionType:  # X | None
        kind = get_args(kind)[0]
    if kind is bool:
        return {"action": "store_false" if default is True else "store_true"}
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return {"choices": inner}
    if get_origin(kind) is list:
        return {"nargs": "+", "type": inner[0]}
    if get_origin(kind) is tuple:
        return {"nargs": len(inner), "type": inner[0]}
    return {"type": kind} if kind is not str else {}
