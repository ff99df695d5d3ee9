"""Laws of the step log: every step once, also after a resume, and readable while it is cut off."""

import json

import torch
from transformers.training_args import ParallelMode

from hf_causal_video.training.step_log import StepLog, read_log

ONE = ParallelMode.NOT_PARALLEL


def test_every_step_is_written_once_with_the_mean_of_its_batches(tmp_path):
    log = StepLog(tmp_path, writes=True)
    log.start(0)
    log.add(1, {"loss": torch.tensor(1.0), "loss_answer": torch.tensor(2.0)})
    log.add(1, {"loss": torch.tensor(3.0)})  # a second batch of the step, without this term
    log.save(ONE)
    log.add(2, {"loss": torch.tensor(5.0)})
    log.write(log.take(ONE))
    assert read_log(log.path) == [{"step": 1, "loss": 2.0, "loss_answer": 2.0}, {"step": 2, "loss": 5.0}]


def test_a_resumed_run_drops_the_steps_that_it_repeats_and_a_line_that_a_kill_cut(tmp_path):
    lines = [json.dumps({"step": step, "loss": float(step)}) for step in (1, 2, 3)]
    (tmp_path / "training_log.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "lo')
    log = StepLog(tmp_path, writes=True)
    log.start(2)
    assert [line["step"] for line in read_log(log.path)] == [1, 2]
    log.start(0)
    assert read_log(log.path) == []


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    log = StepLog(tmp_path, writes=False)
    log.start(0)
    log.add(1, {"loss": torch.tensor(1.0)})
    log.save(ONE)
    assert not log.path.exists()
