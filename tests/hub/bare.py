"""An environment that holds what `pip install torch transformers` would, and a client that runs in it.

The environment is a folder of links to exactly the installed distributions that torch and transformers require, read
from their metadata without extras; Python starts without its site packages and finds only that folder. So neither
hf_causal_video nor datasets, accelerate, peft or av is there.

Run as a file it is the client: `python -S -P bare.py FOLDER STEP`.
"""

import importlib.util
import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ABSENT = ("hf_causal_video", "datasets", "accelerate", "peft", "av", "PIL", "pyarrow", "scipy", "pandas", "evaluate")


def required(*names: str) -> list[Distribution]:
    """The installed distributions that these need, and these; a marker for another platform is not installed here."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        needed = [line for line in found[name].requires or [] if "extra ==" not in line]
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed]
    return list(found.values())


def make_site(folder: Path, *names: str) -> Path:
    """Fill a folder with links to the files of these distributions and of what they need."""
    folder.mkdir()
    for one in required(*names):
        root = Path(str(one.locate_file("")))
        tops = {Path(file).parts[0] for file in one.files or [] if not str(file).startswith("..")}
        for top in tops - {"__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(root / top)
    return folder


def assert_absent(*names: str) -> None:
    for name in names:
        assert importlib.util.find_spec(name) is None, f"{name} is here"


def load_all(folder: Path) -> None:
    """Load and run every model listed in `cases.json`, and compare with the outputs that the package got."""
    assert_absent(*ABSENT)
    import torch
    import transformers
    from safetensors.torch import load_file

    for name, case in json.loads((folder / "cases.json").read_text()).items():
        model = transformers.AutoModel.from_pretrained(case["repository"], trust_remote_code=True)
        config = transformers.AutoConfig.from_pretrained(case["repository"], trust_remote_code=True)
        processor = transformers.AutoProcessor.from_pretrained(case["repository"], trust_remote_code=True)
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        assert type(processor).__module__.startswith("transformers_modules."), type(processor)
        assert type(config).__name__ == case["config"] and type(processor).__name__ == case["processor"]
        stored = load_file(folder / f"{name}.safetensors")
        given = {key.removeprefix("in."): value for key, value in stored.items() if key.startswith("in.")}
        with torch.no_grad():
            output = model.eval()(**given)
        for key in (key for key in stored if key.startswith("out.")):
            close = {"rtol": 0, "atol": 1e-6}  # a process more may round the last bit otherwise
            torch.testing.assert_close(output[key.removeprefix("out.")], stored[key], **close, msg=f"{name}, {key}")
        for task in case["tasks"]:
            other = getattr(transformers, task).from_pretrained(case["repository"], trust_remote_code=True)
            assert type(other) is type(model), (task, type(other))
        if "question" in case:
            again = processor(case["question"], case["choices"], frame_features=torch.zeros(9, case["width"]))
            assert torch.equal(again["input_ids"], stored["ids"]), name
        else:
            tracks = processor(case["tracks"], frame_size=(100, 100))
            assert torch.equal(tracks["track_boxes"], stored["boxes"]), name
            assert isinstance(processor.post_process_relations(model(**tracks), tracks), list)
        print(f"{name}: {type(model).__name__} from {type(model).__module__}", flush=True)


def load_adapters(folder: Path) -> None:
    """Adapters and their base, where peft is the one library more."""
    assert_absent("hf_causal_video", "datasets", "av")
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoProcessor

    told = json.loads((folder / "adapted.json").read_text())
    model = AutoModel.from_pretrained(told["repository"], trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(told["repository"], trust_remote_code=True)
    stored = load_file(folder / f"{told['base']}.safetensors")
    with torch.no_grad():
        output = model.eval()(**{key[3:]: value for key, value in stored.items() if key.startswith("in.")})
    assert torch.allclose(output.logits, load_file(folder / "adapted.safetensors")["logits"], atol=1e-6)
    assert all(type(part).__module__.startswith("transformers_modules.org.") for part in (model, processor))


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]))
