"""The one error of the package: it says what was found, what was expected, and how to mend it."""


class CausalVideoError(ValueError):
    """Bad input, stated so that the reader can mend it without opening our source.

    Args:
        what: what went wrong, in one clause.
        found: what was there.
        expected: what should have been there.
        fix: what to do now.

    Example:
        >>> raise CausalVideoError("no frames", found="0 frames", expected="at least 1", fix="check the clip")
        Traceback (most recent call last):
        hf_causal_video.errors.CausalVideoError: no frames: found 0 frames; expected at least 1. Fix: check the clip.
    """

    def __init__(self, what: str, *, found: object, expected: object, fix: str):
        self.what, self.found, self.expected, self.fix = what, found, expected, fix
        super().__init__(f"{what}: found {found}; expected {expected}. Fix: {fix.rstrip('.')}.")

    def __reduce__(self):
        """Keep the four parts when the error crosses a process boundary (data loader workers)."""
        return _rebuild, (self.what, self.found, self.expected, self.fix)


def _rebuild(what: str, found: object, expected: object, fix: str) -> CausalVideoError:
    return CausalVideoError(what, found=found, expected=expected, fix=fix)
