"""Train every question model in a plain loop, in as many processes as there are; run by `accelerate launch`.

Run as `accelerate launch --cpu --num_processes 2 raw_training.py FOLDER`: every process writes its losses, and sums
of its weights after the last step.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from hf_causal_video.models import ALL_METHODS
from tests.models.test_with_transformers import default_data_collator, default_model, rows


def main(folder: Path) -> None:
    """Two steps of each default config; nothing sets the progress of the training."""
    accelerator = Accelerator(cpu=True)
    report = {}
    for method in ALL_METHODS:
        torch.manual_seed(accelerator.process_index)
        model = default_model(method).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = rows(8, method).remove_columns("note")
        loader = DataLoader(data, batch_size=2, collate_fn=default_data_collator)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        losses = []
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        weights = [float(parameter.detach().double().sum()) for parameter in model.parameters()]
        report[method] = {"losses": losses, "weights": weights}
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
