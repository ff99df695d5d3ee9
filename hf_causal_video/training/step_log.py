"""Log of a run: one line per step with the loss and each of its terms, and one line per validation.

Why a file of its own: `training_log.jsonl` can be read while the run goes on, survives a kill up to the last logged
step, and a resumed run continues it as if nothing had happened.
"""

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers.trainer_pt_utils import nested_gather
from transformers.training_args import ParallelMode

from hf_causal_video.utils.files import write_whole

LOG_FILE = "training_log.jsonl"


class StepLog:
    """Collect the loss terms of each step on the device, and write them when the Trainer logs.

    Args:
        folder: `output_dir` of the run.
        writes: whether this process writes the file.
    """

    def __init__(self, folder: str | Path, writes: bool):
        self.path = Path(folder) / LOG_FILE
        self.writes = writes
        self.pending: list[tuple[int, dict[str, Tensor]]] = []  # step, terms of one batch
        self.saved: list[dict[str, float]] = []  # lines written with a checkpoint since the Trainer last logged

    def start(self, step: int) -> None:
        """Keep the lines up to a step, from which a run starts or resumes."""
        self.pending = []
        if not self.writes:
            return
        kept = [line for line in read_log(self.path) if line["step"] <= step] if step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Keep the terms of a batch; nothing is read from the device yet."""
        self.pending.append((step, {name: term.detach().float().mean() for name, term in terms.items()}))

    def take(self, parallel_mode: ParallelMode) -> list[dict[str, float]]:
        """Return the pending steps, averaged over the batches of a step and over processes; all processes call it."""
        names = sorted({name for _, terms in self.pending for name in terms})
        if not names:
            return []
        missing = torch.tensor(float("nan"), device=next(iter(self.pending[0][1].values())).device)
        table = torch.stack([torch.stack([terms.get(name, missing) for name in names]) for _, terms in self.pending])
        gathered = nested_gather(table.unsqueeze(0), parallel_mode).nanmean(0).tolist()  # (batches, terms)
        steps = [step for step, _ in self.pending]
        self.pending = []
        lines = []
        for step in dict.fromkeys(steps):
            rows = [row for row, of_step in zip(gathered, steps, strict=True) if of_step == step]
            line: dict[str, float] = {"step": step}
            for name, values in zip(names, zip(*rows, strict=True), strict=True):
                known = [value for value in values if value == value]
                if known:
                    line[name] = sum(known) / len(known)
            lines.append(line)
        return lines

    def save(self, parallel_mode: ParallelMode) -> None:
        """Write the pending steps with a checkpoint, so that a resumed run lacks none; all processes call it."""
        lines = self.take(parallel_mode)
        self.saved += lines
        self.write(lines)

    def write(self, lines: list[dict[str, float]]) -> None:
        """Append lines to the file."""
        if self.writes and lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Read a log; a last line that a kill cut off is left out.

    Args:
        path: `training_log.jsonl`.

    Returns:
        One dictionary per line, each with `step`; [] if the file is missing.
    """
    path = Path(path)
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
