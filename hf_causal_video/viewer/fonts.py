"""Find a font of the system that has a letter.

Why: Pillow's own font has Latin letters alone, and a question in Chinese or Arabic is no question in question marks.
"""

import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

SIZE = 20
MISSING = "\U0010ffff"  # no font has it: what it draws is what a font draws for a letter that it lacks
ENDINGS = {".ttf", ".otf", ".ttc"}
PREFERRED = ("Noto", "DejaVu", "Droid", "WenQuanYi", "Arial", "Segoe")  # wide coverage first


def font_folders() -> list[Path]:
    """Folders in which systems keep their fonts."""
    home = Path.home()
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"]
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local/share/fonts", home / ".fonts"]


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """Font files of the system, those with many letters first."""
    files = [
        Path(folder, name)
        for root in font_folders()
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in ENDINGS
    ]

    def order(path: Path) -> tuple[int, int, str]:
        rank = next((place for place, name in enumerate(PREFERRED) if path.name.startswith(name)), len(PREFERRED))
        return rank, "bold" in path.name.lower() or "italic" in path.name.lower(), str(path)

    return tuple(str(path) for path in sorted(files, key=order))


@lru_cache(maxsize=512)
def _face(path: str | None) -> tuple[ImageFont.FreeTypeFont, bytes] | None:
    """A font, and what it draws for a letter that it lacks; None where it cannot be used."""
    try:
        face = ImageFont.load_default(SIZE) if path is None else ImageFont.truetype(path, SIZE)
        return (face, _drawn(face, MISSING)) if isinstance(face, ImageFont.FreeTypeFont) else None
    except (OSError, ValueError):
        return None


def _drawn(face: ImageFont.FreeTypeFont, letter: str) -> bytes:
    mask = face.getmask(letter)
    return bytes(mask) + bytes(str(mask.size), "ascii")


@lru_cache(maxsize=8192)
def has_letter(path: str | None, letter: str) -> bool:
    """Return whether a font file, or Pillow's own font, has a letter.

    Example:
        >>> has_letter(None, "a"), has_letter(None, "\N{CJK UNIFIED IDEOGRAPH-4E2D}")
        (True, False)
    """
    known = _face(path)
    try:
        return known is not None and _drawn(known[0], letter) not in (known[1], b"(0, 0)")
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=4096)
def font_with(letter: str) -> str | None:
    """Return the path of a font of the system that has a letter, or None."""
    program = shutil.which("fc-list")
    files: list[str] | tuple[str, ...] = font_files()
    if program is not None and files:
        try:
            listed = subprocess.run(
                [program, f":charset={ord(letter):x}", "file"], capture_output=True, text=True, timeout=10, check=True
            ).stdout.split(":")
            known = {line.strip() for line in listed}
            files = [path for path in files if path in known]
        except (OSError, subprocess.SubprocessError):
            pass
    return next((path for path in files if has_letter(path, letter)), None)
