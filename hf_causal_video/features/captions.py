"""Frame features from captions: the sentence vector of the caption of each second of a video.

Why: captions of every second are public for benchmarks whose videos are gone, they need no picture to be decoded, and
a text encoder puts them into the same space as the question. A caption file is `<video>_cap.json`, second to text.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_causal_video.features.build import ExtractionReport, build_feature_set
from hf_causal_video.features.encoders import load_network
from hf_causal_video.features.store.reader import FeatureStore, Provenance, VideoFeatures
from hf_causal_video.utils.checks import check_choice, check_text
from hf_causal_video.utils.errors import require, reworded

ENDING = "_cap.json"
SAMPLING = "captions-fps-1"


class TextEncoder:
    """Turn sentences into vectors of length 1.

    Args:
        model: Hub id or local folder of a text encoder.
        pooling: "mean" over the tokens of the mask, or "cls", the first token.
        max_tokens: longer texts are cut, as sentence encoders do.
        revision: branch, tag or commit on the Hub.
        device: where to compute.
        dtype: "float32" or "bfloat16"; pooling and norm are always float32.
        batch_size: sentences per forward pass.

    Raises:
        CausalVideoError: an unknown pooling, or a network that is absent or incomplete.
    """

    def __init__(
        self,
        model: str,
        pooling: str = "mean",
        max_tokens: int = 128,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        from transformers import AutoModel, AutoTokenizer

        check_choice("pooling", pooling, ("mean", "cls"))
        self.model_name = model
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.model, self.revision = load_network(
            AutoModel, model, revision, device, dtype, lambda weight: "pooler" in weight
        )
        self.tokenizer = AutoTokenizer.from_pretrained(
            model, revision=None if Path(model).is_dir() else self.revision, trust_remote_code=False
        )
        self.dim = self(["a"]).shape[1]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; gives (texts, C) float32 on the CPU, each row of length 1."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of one length share a batch
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        vectors = torch.cat([self._encode([texts[i] for i in batch]) for batch in batches])
        return vectors[torch.tensor(order).argsort()]

    def _encode(self, texts: list[str]) -> Tensor:
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        inputs = inputs.to(self.device)
        states = self.model(**inputs).last_hidden_state.float()  # (texts, L, C)
        mask = inputs["attention_mask"][..., None].float()
        vectors = states[:, 0] if self.pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()


def extract_captions(
    captions: str | Path,
    output: str | Path,
    text_model: str,
    pooling: str = "mean",
    *,
    max_tokens: int = 128,
    revision: str | None = None,
    split: str = "train",
    rows_per_shard: int = 64,
    batch_size: int = 32,
    device: str = "cpu",
    dtype: str = "float32",
    progress: bool = True,
) -> ExtractionReport:
    """Make a feature set with one frame feature for each captioned second.

    Args:
        captions: a folder or zip of `<video>_cap.json` files: `{"0": text, "1": text, ...}`, key = second.
        output: folder of the feature set; run again to resume.
        text_model, pooling, max_tokens, revision, batch_size, device, dtype: see `TextEncoder`.
        split, rows_per_shard, progress: see `build_feature_set`.

    Raises:
        CausalVideoError: no caption files, or a network that cannot be loaded; a bad caption file never raises but is
            listed in `failed.json`.
    """
    source = _CaptionSource(Path(captions))
    encoder = TextEncoder(text_model, pooling, max_tokens, revision, device, dtype, batch_size)

    def make(video_id: str, name: str) -> VideoFeatures:
        seconds, texts = source.read(name)
        return VideoFeatures(video_id, torch.tensor(seconds), encoder(texts))

    import transformers

    provenance = Provenance(
        text_model,
        encoder.revision,
        f"captions, {pooling} of the last layer, L2",
        encoder.dim,
        sampling=SAMPLING,
        created_with={
            "dtype": dtype,
            "max_tokens": max_tokens,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )
    return build_feature_set(
        source.names,
        make,
        output,
        provenance,
        split=split,
        rows_per_shard=rows_per_shard,
        progress=progress,
        label="captions",
    )


def import_caption_features(
    file: str | Path, output: str | Path | None = None, split: str = "train", progress: bool = False
) -> FeatureStore:
    """Read ready caption features into a store, in memory or on disk.

    Args:
        file: safetensors with `features` (rows, C), `video_id` (rows,) int, `second` (rows,) int, one row per second;
            its header names `encoder` and `pooling`.
        output: folder of the feature set to write; None keeps the features in memory.
        split, progress: see `build_feature_set`.

    Raises:
        CausalVideoError: the file has another layout, or its header does not say what made it.
    """
    from safetensors import SafetensorError, safe_open

    what = f"{file} does not hold caption features"
    expected = "safetensors with features, video_id and second"
    fix = "make features from captions with extract_captions"
    with reworded((SafetensorError, OSError), what, expected=expected, fix=fix), safe_open(str(file), "np") as tensors:
        header = tensors.metadata() or {}
        features, ids, seconds = (tensors.get_tensor(n) for n in ("features", "video_id", "second"))
    for name in ("encoder", "pooling"):
        check_text(f"{name} in the header of {file}", header.get(name), fix="write where the features come from")
    order = np.lexsort((seconds, ids))
    edges = np.flatnonzero(np.diff(ids[order])) + 1
    rows = {str(ids[part[0]]): part for part in np.split(order, edges)}
    provenance = Provenance(
        header["encoder"],
        header.get("encoder_weights_sha256") or "unknown",
        f"captions, {header['pooling']}",
        features.shape[1],
        sampling=SAMPLING,
        created_with=dict(sorted(header.items())),
    )

    def make(video_id: str, part: np.ndarray) -> VideoFeatures:
        return VideoFeatures(video_id, torch.from_numpy(seconds[part]).float(), torch.from_numpy(features[part]))

    if output is None:
        return FeatureStore.from_rows(provenance, (make(video_id, part) for video_id, part in rows.items()))
    report = build_feature_set(rows, make, output, provenance, split=split, progress=progress, label="captions")
    reasons = list(report.failed.values())
    require(not reasons, f"{file} holds bad rows", found=reasons[:1], expected="finite features, each second once")
    return FeatureStore.open(output)


class _CaptionSource:
    """The caption files of a folder or zip, by video id, read one at a time."""

    def __init__(self, path: Path):
        self.path = path
        self.archive = zipfile.ZipFile(path) if path.is_file() and zipfile.is_zipfile(path) else None
        listed = self.archive.namelist() if self.archive else [str(f) for f in path.rglob(f"*{ENDING}")]
        files = {Path(name).name.removesuffix(ENDING): name for name in listed if name.endswith(ENDING)}
        problem = f"no file <video>{ENDING}"
        require(files, f"no captions in {path}", found=problem, expected="a folder or zip of caption files")
        self.names = dict(sorted(files.items()))

    def read(self, name: str) -> tuple[list[float], list[str]]:
        """Give seconds and texts of one file, in order of time."""
        raw = self.archive.read(name) if self.archive else Path(name).read_bytes()
        what = f"{Path(name).name} is not a caption file"
        expected = '{"0": text, "1": text, ...}'
        with reworded(ValueError, what, expected=expected):
            texts = json.loads(raw)
        require(isinstance(texts, dict) and texts, what, found="no captions", expected=expected)
        for second, text in texts.items():
            is_caption = re.fullmatch(r"\d+", second) and isinstance(text, str) and text.strip()
            require(is_caption, what, found=f"second {second!r} with text {text!r}", expected=expected)
        ordered = sorted((float(second), text) for second, text in texts.items())
        return [second for second, _ in ordered], [text for _, text in ordered]
