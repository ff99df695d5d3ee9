"""The error of the package (what was found, what was expected, how to fix it), and how commands end."""

import errno
import os
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

STOPPED = 130  # exit code after Ctrl-C
NETWORK_CLIENTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
CANNOT_WRITE = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
DENIED = {errno.EACCES, errno.EPERM}


class CausalVideoError(ValueError):
    """Bad input, stated so that the reader can fix it without opening our source.

    Args:
        what: what went wrong, in one clause.
        found: what was there.
        expected: what should have been there.
        fix: what to do now.

    Example:
        >>> raise CausalVideoError("no frames", found="0 frames", expected="at least 1", fix="check the clip")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: no frames: found 0 frames; expected at least 1. Fix: ...
    """

    def __init__(self, what: str, *, found: object, expected: object, fix: str):
        self.what = what
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(f"{what}: found {found}; expected {expected}. Fix: {fix.rstrip('.')}.")

    def __reduce__(self):
        """Keep the four parts when the error crosses a process boundary (data loader workers)."""
        return _rebuild, (self.what, self.found, self.expected, self.fix)


def require(
    condition: object,
    what: str,
    *,
    found: object | Callable[[], object],
    expected: object,
    fix: str = "correct the value",
) -> None:
    """Raise CausalVideoError unless a condition holds.

    Args:
        condition: anything with a truth value.
        what: the invalid thing, in one clause.
        found: its value; a callable is only called on failure, for values that are costly to describe.
        expected: what would have been valid.
        fix: what the user can do.

    Raises:
        CausalVideoError: the condition is false.

    Example:
        >>> require(2 > 1, "order", found="2 and 1", expected="ascending numbers")
    """
    if not condition:
        raise CausalVideoError(what, found=found() if callable(found) else found, expected=expected, fix=fix)


def require_values(
    condition: "Tensor", what: str, *, found: Callable[[], object], expected: object, fix: str = "correct the value"
) -> None:
    """Check values of tensors without waiting for the device that holds them.

    Why: `bool(tensor)` halts a GPU until everything before it is done, and cannot be compiled or exported. On a CPU
    this raises at once; on other devices, and in compiled or exported graphs, the same condition is asserted there,
    which raises RuntimeError.

    Args:
        condition: () bool.
        what, found, expected, fix: as in `require`; `found` is only called on failure.

    Raises:
        CausalVideoError: the condition is false.

    Example:
        >>> import torch
        >>> require_values(torch.tensor(True), "labels", found=lambda: [], expected="known answers")
    """
    import torch

    message = f"{what}: expected {expected}. Fix: {fix.rstrip('.')}."
    if torch.compiler.is_compiling():
        torch._assert_async(condition, message)
        return
    try:
        torch._assert_async(condition, message)
    except RuntimeError as error:
        raise CausalVideoError(what, found=found(), expected=expected, fix=fix) from error


@contextmanager
def reworded(
    kinds: type[Exception] | tuple[type[Exception], ...], what: str, *, expected: object, fix: str = "correct it"
) -> Iterator[None]:
    """Raise errors of other libraries as CausalVideoError, with their first line as what was found.

    Args:
        kinds: the errors; a CausalVideoError passes as it is, and an error of another kind too.
        what, expected, fix: as in `require`.

    Example:
        >>> with reworded(ValueError, "--limit", expected="a whole number"):
        ...     int("three")
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: --limit: found invalid literal ...; expected a whole number. ...
    """
    try:
        yield
    except CausalVideoError:
        raise
    except kinds as error:
        raise CausalVideoError(what, found=first_line(error), expected=expected, fix=fix) from error


def first_line(error: BaseException) -> str:
    """First line of what an error says; its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def parse_arguments(parser: ArgumentParser, argv: Sequence[str] | None = None) -> Namespace:
    """Parse a command line; where "--" stands twice, argparse gives a positional argument the value []."""
    args = parser.parse_args(argv)
    if any(isinstance(value, list) and not value for value in vars(args).values()):
        parser.error('an argument is missing; "--" may stand once')
    return args


def run_command(name: str, run: Callable[[], int | None]) -> int:
    """Run the body of a command; a bad input ends with its message and exit code 2, never with a stack of frames.

    Ctrl-C ends with one sentence and 130, as in a shell.

    Example:
        >>> run_command("quiet", lambda: None)
        0
    """
    try:
        return run() or 0
    except (CausalVideoError, OSError) as error:
        print(f"{name}: {as_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped by Ctrl-C.", file=sys.stderr)
        return STOPPED


def as_message(error: CausalVideoError | OSError) -> CausalVideoError:
    """Return an error of this package as it is; one of files or network in its words, one sentence for each fault.

    Example:
        >>> print(as_message(FileNotFoundError(2, "No such file or directory", "a.mp4")))
        cannot read a.mp4: found no such file or directory; expected a file that exists. Fix: check the path.
    """
    if isinstance(error, CausalVideoError):
        return error
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    reason = reason[0].lower() + reason[1:]
    path = error.filename2 or error.filename
    if isinstance(error, ConnectionError | TimeoutError) or path is None and _is_about_network(error):
        return CausalVideoError(
            "cannot reach the Hub",
            found=reason,
            expected="a network connection to it",
            fix="check the network, or name a local folder; HF_HUB_OFFLINE=1 uses what was downloaded before",
        )
    if path is None:
        return CausalVideoError(
            "cannot read a file or repository",
            found=reason,
            expected="one that exists and may be read",
            fix="check its name and your rights",
        )
    name = os.fsdecode(path)
    denied = error.errno in DENIED and (not os.path.exists(name) or os.access(name, os.R_OK))
    if error.errno in CANNOT_WRITE or denied:
        return CausalVideoError(
            f"cannot write {name}",
            found=reason,
            expected="a place with free space that may be written",
            fix="free some space, or name another place",
        )
    missing = error.errno == errno.ENOENT
    return CausalVideoError(
        f"cannot read {name}",
        found=reason,
        expected="a file that exists" if missing else "a file that may be read",
        fix="check the path" if missing else "check its rights",
    )


def _is_about_network(error: BaseException) -> bool:
    """Return whether an error, or what caused it, comes from a client of the network."""
    seen: BaseException | None = error
    while seen is not None:
        module = type(seen).__module__.partition(".")[0]
        if module in NETWORK_CLIENTS or isinstance(seen, socket.gaierror | ConnectionError | TimeoutError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _rebuild(what: str, found: object, expected: object, fix: str) -> CausalVideoError:
    return CausalVideoError(what, found=found, expected=expected, fix=fix)
