"""Pictures of the verbs: check name and font first, write the file, note replaced letters."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def check_picture(path: Path | None, font: Path | None) -> None:
    """Refuse a name of another kind than PNG and an invalid font, before anything is read or computed."""
    if path is not None:
        from hf_causal_video.viewer.canvas import Canvas, check_ending

        check_ending(path)
        Canvas(1, 1, font_path(font))


def font_path(font: Path | None) -> str | None:
    """Return the font as the drawing functions take it."""
    return None if font is None else str(font)


def write_picture(path: Path, picture: "Image") -> None:
    """Write a picture, and say so; say it too where letters are written as question marks."""
    from hf_causal_video.viewer.canvas import write_png
    from hf_causal_video.viewer.words import replaced_in_words

    write_png(path, picture)
    print(f"written: {path}", file=sys.stderr)
    if letters := picture.info["replaced"]:
        print(f"note: {replaced_in_words(letters)}", file=sys.stderr)
