"""Train with every parameter sharded over two processes by torch's FSDP, and compare with one process.

Run as `torchrun --nproc_per_node 2 sharded_training.py FOLDER`. Why not through accelerate: on CPUs it ignores the
FSDP of a config file and trains with plain data parallelism.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from tests.models.cases import CASES, Case

DEBERTA = {
    "model_type": "deberta", "vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 24, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0,
    "position_biased_input": False, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
NAMES = ("transtr-choices", "igv-open-ended")


def build(case: Case) -> PreTrainedModel:
    """A model over DeBERTa without dropout."""
    return case.build(**case.still, text_config=DEBERTA).train()


def train(model: PreTrainedModel, case: Case) -> list[float]:
    """Losses of three steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        torch.manual_seed(step)  # random inputs are the same on every process
        loss = model(**case.inputs()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def shard(model: PreTrainedModel) -> PreTrainedModel:
    """Shard the blocks that may not be split, then what is left."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    blocks = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(folder: Path) -> None:
    """Train each model both ways, save the sharded one, load it, and write what came out."""
    torch.distributed.init_process_group("gloo")
    report = {}
    for name in NAMES:
        case = next(case for case in CASES if case.name == name)
        plain, sharded = build(case), shard(build(case))
        wanted, losses = train(plain, case), train(sharded, case)
        local = sum(parameter.to_local().numel() for parameter in sharded.parameters())
        weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if torch.distributed.get_rank() == 0:
            plain.save_pretrained(folder / name, state_dict=weights)
            loaded = type(plain).from_pretrained(folder / name).eval()
            with torch.no_grad():
                gap = (loaded(**case.inputs()).logits - plain.eval()(**case.inputs()).logits).abs().max()
            share = local / sum(parameter.numel() for parameter in plain.parameters())
            report[name] = {"wanted": wanted, "losses": losses, "gap": float(gap), "share": share}
    if torch.distributed.get_rank() == 0:
        (folder / "report.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
