"""Records of a stress test on disk, one line of JSON per question, so that a run that was cut off goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_causal_video.utils.errors import CausalVideoError


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

    def __init__(self, path: str | Path | None, settings: dict[str, Any]):
        self.path, self.settings = None if path is None else Path(path), settings
        self.found: dict[str, dict[str, Any]] = {}
        self.file: Any = None

    def __enter__(self) -> "Records":
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read() if self.path.exists() else 0
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
        return key in self.found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self.found[key]

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep records, and write them at once."""
        for record in records:
            self.found[record["question_id"]] = record
            if self.file is not None:
                self._write(record)
        if self.file is not None:
            self.file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write((json.dumps(line) + "\n").encode("utf-8"))

    def _read(self) -> int:
        """Take over what is there; returns how many bytes of it are whole lines."""
        assert self.path is not None
        whole, first = 0, True
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                break
            if first and row.get("settings") != self.settings:
                before = row.get("settings") or {}
                differs = [name for name in self.settings if before.get(name) != self.settings[name]]
                raise CausalVideoError(
                    f"{self.path} holds another run",
                    found=", ".join(f"{name} {before.get(name)!r}" for name in differs) or "no settings",
                    expected=", ".join(f"{name} {self.settings[name]!r}" for name in differs) or "its settings first",
                    fix="write to another folder, or delete the file to start over",
                )
            if not first:
                self.found[row["question_id"]] = row
            whole, first = whole + len(line), False
        return whole
