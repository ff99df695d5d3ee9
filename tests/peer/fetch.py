"""Fetch transformers' own tests, of the installed version, into the environment; `scripts/test.sh` runs this.

The source distribution on PyPI carries them. Without a network nothing is fetched, and the tests that need them skip.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

FOLDER = Path(sys.prefix) / "transformers-tests"
PACKAGE = FOLDER / "transformers_tests"
VERSION = PACKAGE / "VERSION"


def fetched() -> bool:
    """Whether the tests of the installed version are there."""
    return VERSION.is_file() and VERSION.read_text() == transformers.__version__


def main() -> None:
    """Download the source distribution, and keep the common tests out of it."""
    if fetched():
        return
    pip = [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory() as temporary:
        source = ["download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-d", temporary]
        subprocess.run([*pip, *source, f"transformers=={transformers.__version__}"], check=True)
        into = ["install", "-q", "--no-deps", "--upgrade", "--target", str(FOLDER)]
        subprocess.run([*pip, *into, "parameterized"], check=True)
        PACKAGE.mkdir(parents=True, exist_ok=True)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            for member in opened.getmembers():
                parts = Path(member.name).parts
                if len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                    (PACKAGE / parts[2]).write_bytes(opened.extractfile(member).read())
    (PACKAGE / "__init__.py").touch()
    VERSION.write_text(transformers.__version__)


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"transformers' own tests were not fetched, and are skipped: {error}", file=sys.stderr)
