"""Base of both pipelines: every form of input that pipelines of transformers take, batches, errors in place, saving.

Why: the base class passes each item to `preprocess` alone, cannot batch questions and clips of different number, and
writes a copy of our code into a saved folder, which then opens only with trust and lacks the processor's own file.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Pipeline, ProcessorMixin

from hf_causal_video.utils.checks import check_choice, check_whole
from hf_causal_video.utils.errors import CausalVideoError, as_message, require

OnError = Literal["raise", "return"]
Kind = Literal["single", "list", "dataset", "iterator"]


@dataclass
class Prepared:
    """One clip, ready for the model.

    Args:
        inputs: tensors of the model.
        details: what the result needs in addition to the output.
        forward: options of `_forward`.
        postprocess: options of `postprocess`.
        as_one: return the only answer itself, not a list of one.
    """

    inputs: dict[str, Tensor]
    details: dict[str, object]
    forward: dict[str, object]
    postprocess: dict[str, object]
    as_one: bool = True


@dataclass
class Opaque:
    """Wrapper that keeps the base class from copying a value that is not a tensor."""

    value: Any


@dataclass
class Failed:
    """A clip that cannot be used, with the result that says so."""

    result: dict[str, str]


@runtime_checkable
class Rows(Protocol):
    """A table, or a dataset: rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> object: ...


class ClipPipeline(Pipeline):
    """Base of the pipelines over clips: model and processor, in evaluation mode.

    A subclass has `inputs`, the names of the arguments that belong to one clip; `padding` of its tensors; `prepare`;
    `_forward`, which returns `{"clips": [...]}`, the output of each; `postprocess`, which returns a list; and a
    `__call__` that ends in `self.run_each(...)`.
    """

    processor: ProcessorMixin
    inputs: tuple[str, ...] = ("video",)
    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model.eval()  # also where a model comes fresh from training

    def prepare(self, clip: dict[str, Any], options: Mapping[str, object]) -> Prepared:
        """Check the arguments of one clip, decode it, and make its tensors."""
        raise NotImplementedError

    @property
    def padding(self) -> Mapping[str, int]:
        """Value that pads each input; 0 where none is named."""
        return {}

    def fits(self, one: Prepared, other: Prepared) -> bool:
        """Return whether two clips may go through the model together."""
        return one.inputs.keys() == other.inputs.keys() and one.forward == other.forward

    def run_each(
        self,
        video: object,
        common: Mapping[str, object],
        options: Mapping[str, object],
        on_error: OnError = "raise",
        batch_size: int | None = None,
    ) -> Any:
        """Run one clip, or each of several.

        Args:
            video: one clip; a dictionary of its arguments; a list of either; a table or dataset of rows (columns that
                are not arguments of a clip are left out); or an iterator of any of these.
            common: arguments that hold for all clips; those of a row come first.
            options: of the pipeline.
            on_error: "return" puts `{"error": message}` in the place of a clip that cannot be used.
            batch_size: clips that go through the model together; they are decoded one by one.

        Returns:
            One result, a list of them in the same order, or for an iterator a generator, which runs as it is read.
        """
        check_choice("on_error", on_error, get_args(OnError))
        size = check_whole("batch_size", (self._batch_size or 1) if batch_size is None else batch_size)
        options = {name: value for name, value in options.items() if name != "num_workers"}  # nothing to share out
        kind, rows = _clips_of(video)
        results = self._run(rows, kind in ("dataset", "iterator"), common, options, on_error == "return", size)
        if kind == "iterator":
            return results
        return next(results) if kind == "single" else list(results)

    def _run(
        self,
        rows: Iterable[object],
        of_table: bool,
        common: Mapping[str, object],
        options: Mapping[str, object],
        in_place: bool,
        size: int,
    ) -> Iterator[object]:
        """Yield results in order, as soon as a batch is full or the next clip does not fit into it."""
        waiting: list[Prepared | Failed] = []
        for row in rows:
            clip = {**common, **self._arguments(row, of_table)}
            video = clip.get("video")
            try:
                item: Prepared | Failed = self.prepare(clip, options)
            except (CausalVideoError, OSError) as error:
                if not in_place:
                    raise
                item = _failure(video, error)
            batch = [one for one in waiting if isinstance(one, Prepared)]
            if batch and isinstance(item, Prepared) and not self.fits(batch[0], item):
                yield from self._answer(waiting, in_place)
                waiting = []
                batch = []
            waiting.append(item)
            if not batch and isinstance(item, Failed) or len(batch) + isinstance(item, Prepared) >= size:
                yield from self._answer(waiting, in_place)
                waiting = []
        yield from self._answer(waiting, in_place)

    def _answer(self, items: Sequence[Prepared | Failed], in_place: bool) -> list[object]:
        """Run a batch, and put its results between those of clips that failed."""
        batch = [item for item in items if isinstance(item, Prepared)]
        try:
            results = iter(self._run_batch(batch))
        except (CausalVideoError, OSError) as error:
            if not in_place:
                raise
            if len(items) > 1:  # one by one, to find out which it is
                return [result for item in items for result in self._answer([item], in_place)]
            return [_failure(batch[0].details.get("video"), error).result]
        return [item.result if isinstance(item, Failed) else next(results) for item in items]

    def _run_batch(self, batch: Sequence[Prepared]) -> list[object]:
        if not batch:
            return []
        counts = [len(next(iter(clip.inputs.values()))) for clip in batch]
        inputs = join([clip.inputs for clip in batch], self.padding)
        details = Opaque([clip.details for clip in batch])
        outputs = self.forward({"inputs": inputs, "counts": counts, "details": details}, **batch[0].forward)["clips"]
        finish: Callable[..., list[object]] = self.postprocess
        results: list[object] = []
        for clip, output in zip(batch, outputs, strict=True):
            answers = finish({**clip.details, **output}, **clip.postprocess)
            results.append(answers[0] if clip.as_one else answers)
        return results

    def _all_options(self, options: Mapping[str, object]) -> tuple[dict[str, Any], ...]:
        """Return the options of `preprocess`, `_forward` and `postprocess`: of the call, else of the pipeline."""
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        return tuple(
            {**default, **new} for default, new in zip(defaults, self._sanitize_parameters(**options), strict=True)
        )

    def _arguments(self, row: object, of_table: bool) -> dict[str, object]:
        """Return the arguments of one clip; a row of a table may hold other columns as well."""
        if not isinstance(row, Mapping):
            return {"video": row}
        return {name: value for name, value in row.items() if not of_table or name in self.inputs}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Save model and processor, and nothing else: the folder opens without trust where this package is installed.

        Args:
            save_directory: the folder.
            kwargs: of `model.save_pretrained`, such as `push_to_hub`.
        """
        folder = Path(save_directory)
        require(not folder.is_file(), "folder", found=f"a file {folder}", expected="a folder", fix="name another one")
        if hasattr(self.model.config, "custom_pipelines"):  # of a folder that an older version saved
            del self.model.config.custom_pipelines
        self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder, **kwargs)


def check_source(video: object, name: str, other: object) -> None:
    """Refuse a clip with neither a video nor what may stand in its place, or with both."""
    problem = f"both a video and {name}" if video is not None else f"neither a video nor {name}"
    fix = f"pass a path, frames, or {name}=..."
    require((video is None) != (other is None), "clip", found=problem, expected=f"a video or {name}", fix=fix)


def check_options(options: Iterable[str], known: Sequence[str], pipeline: type) -> None:
    """Refuse options that the call does not have."""
    unknown = sorted(set(options) - set(known))
    fix = f"see help({pipeline.__name__}.__call__)"
    require(not unknown, "pipeline argument", found=unknown, expected=f"arguments, or {', '.join(known)}", fix=fix)


def join(batches: Sequence[Mapping[str, Tensor]], padding: Mapping[str, int]) -> dict[str, Tensor]:
    """Join batches along the first axis, each tensor padded at the end of its other axes.

    Args:
        batches: the same names in each.
        padding: value that pads each tensor; 0 where none is named.

    Example:
        >>> parts = [{"ids": torch.tensor([[5, 6]])}, {"ids": torch.tensor([[7]])}]
        >>> join(parts, {"ids": 1})["ids"].tolist()
        [[5, 6], [7, 1]]
    """
    if len(batches) == 1:
        return dict(batches[0])
    joined = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        widest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        padded = []
        for part in parts:
            missing = [most - size for most, size in zip(widest, part.shape[1:], strict=True)]
            ends = [pad for count in reversed(missing) for pad in (0, count)]  # F.pad counts axes from the last
            padded.append(F.pad(part, ends, value=padding.get(name, 0)))
        joined[name] = torch.cat(padded)
    return joined


def _failure(video: object, error: CausalVideoError | OSError) -> Failed:
    name = {"video": str(video)} if isinstance(video, str | os.PathLike) else {}
    return Failed({**name, "error": str(as_message(error))})


def _clips_of(video: object) -> tuple[Kind, Iterable[object]]:
    """Tell one clip from several; a list of decoded frames is one clip, a list of paths or dictionaries is several."""
    if isinstance(video, list | tuple):
        several = len(video) > 0 and all(isinstance(row, Mapping | str | os.PathLike) for row in video)
        return ("list", video) if several else ("single", [video])
    if video is None or isinstance(video, str | os.PathLike | bytes | Mapping | np.ndarray | Tensor):
        return "single", [video]
    if isinstance(video, Rows):
        return "dataset", (video[index] for index in range(len(video)))
    return ("iterator", video) if isinstance(video, Iterable) else ("single", [video])
