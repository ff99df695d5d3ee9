"""Records of a stress test on disk, one line of JSON per question, so that a run that was cut off goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypedDict

from hf_causal_video.utils.errors import require


class Settings(TypedDict):
    """Settings of a run, on which its records depend."""

    name: str
    identity: str
    tests: list[str]
    seed: int
    least_frames: int
    environment: str
    evidence: str
    removed: str
    questions: str


class Record(TypedDict):
    """Answers to one question under every test; frames by index, None without evidence."""

    question_id: str
    video_id: str
    answer: int
    choices: int
    frames: int
    evidence: list[int] | None
    removed: list[int] | None
    predictions: dict[str, int]
    notes: list[str]


class Records:
    """Records by question id; on disk where a path is given.

    The first line holds the settings. A last line that a kill cut short is dropped.

    Args:
        path: the file, or None.
        settings: what the records depend on.

    Raises:
        CausalVideoError: the file is of a run with other settings.

    Example:
        >>> with Records(None, {"seed": 0}) as records:
        ...     records.add([{"question_id": "v_0", "predictions": {}}])
        ...     "v_0" in records
        True
    """

    def __init__(self, path: str | Path | None, settings: Settings):
        self.path = None if path is None else Path(path)
        self.settings = settings
        self.by_question: dict[str, Record] = {}
        self.file: BinaryIO | None = None

    def __enter__(self) -> "Records":
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(self.path) if self.path.exists() else 0
            self.file = self.path.open("r+b" if self.path.exists() else "wb")
            self.file.truncate(whole)
            self.file.seek(whole)
            if not whole:
                self._write({"settings": self.settings})
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.by_question

    def __getitem__(self, key: str) -> Record:
        return self.by_question[key]

    def add(self, records: Sequence[Record]) -> None:
        """Keep records, and write them at once."""
        for record in records:
            self.by_question[record["question_id"]] = record
            self._write(record)
        if self.file is not None:
            self.file.flush()

    def _write(self, line: object) -> None:
        if self.file is not None:
            self.file.write((json.dumps(line) + "\n").encode("utf-8"))

    def _read(self, path: Path) -> int:
        """Take over the records of a file; return how many bytes of it are whole lines."""
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                break
            if whole:
                self.by_question[row["question_id"]] = row
            else:
                self._check(row.get("settings") or {})
            whole += len(line)
        return whole

    def _check(self, before: dict[str, object]) -> None:
        differs = [name for name, value in self.settings.items() if before.get(name) != value]
        require(
            not differs and before.keys() == self.settings.keys(),
            f"{self.path} holds another run",
            found=", ".join(f"{name} {before.get(name)!r}" for name in differs) or "other settings",
            expected=", ".join(f"{name} {dict(self.settings)[name]!r}" for name in differs) or "its settings first",
            fix="write to another folder, or delete the file to start over",
        )
