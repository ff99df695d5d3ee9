"""Base of both pipelines: every form of input that pipelines of transformers take, errors in place, saving.

Why: the base class passes each item to `preprocess` alone, and writes a copy of our code into a saved folder, which
then opens only with trust and lacks the processor's own file.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from transformers import Pipeline

from hf_causal_video.utils.errors import CausalVideoError, as_message, require

OnError = Literal["raise", "return"]


class ClipPipeline(Pipeline):
    """Base of the pipelines over clips: model and processor, in evaluation mode.

    A subclass has `inputs`, the names of the arguments that belong to one clip, `preprocess`, `_forward`,
    `postprocess`, and a `__call__` that ends in `self.run_each(...)`.
    """

    inputs: tuple[str, ...] = ("video",)
    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    processor: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model.eval()  # also where a model comes fresh from training

    def run_each(
        self, run: Callable[..., Any], video: Any, common: Mapping[str, Any], on_error: OnError = "raise"
    ) -> Any:
        """Run one clip, or each of several.

        Args:
            run: takes the arguments of one clip by name, and returns its result.
            video: one clip; a dictionary of its arguments; a list of either; a table or dataset of rows (columns that
                are not arguments of a clip are left out); or an iterator of any of these.
            common: arguments that hold for all clips; those of a row come first.
            on_error: "return" puts `{"error": message}` in the place of a clip that cannot be used.

        Returns:
            One result, a list of them in the same order, or for an iterator a generator, which runs as it is read.
        """
        require(
            on_error in get_args(OnError),
            "on_error",
            found=repr(on_error),
            expected="'raise' or 'return'",
            fix="choose one of them",
        )

        def one(row: Any, is_row: bool) -> Any:
            try:
                return run(**{**common, **self._arguments(row, is_row)})
            except (CausalVideoError, OSError) as error:
                if on_error == "raise":
                    raise
                named = row.get("video") if isinstance(row, Mapping) else row
                name = {"video": str(named)} if isinstance(named, str | os.PathLike) else {}
                return {**name, "error": str(as_message(error))}

        kind = _kind_of(video)
        if kind == "list":
            return [one(row, False) for row in video]
        if kind == "dataset":
            return [one(video[index], True) for index in range(len(video))]
        if kind == "iterator":
            return self._generate(video, one)
        return one(video, False)

    def _generate(self, rows: Any, one: Callable[[Any, bool], Any]) -> Iterator[Any]:
        for row in rows:
            yield one(row, True)

    def _arguments(self, row: Any, is_row: bool) -> dict[str, Any]:
        """Return the arguments of one clip; a row of a table may hold other columns as well."""
        if not isinstance(row, Mapping):
            return {"video": row}
        return {name: value for name, value in row.items() if not is_row or name in self.inputs}

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


def _kind_of(video: Any) -> Literal["single", "list", "dataset", "iterator"]:
    """Tell one clip from several; a list of decoded frames is one clip, a list of paths or dictionaries is several."""
    if video is None or isinstance(video, str | os.PathLike | bytes | Mapping | np.ndarray | torch.Tensor):
        return "single"
    if isinstance(video, list | tuple):
        several = len(video) > 0 and all(isinstance(row, Mapping | str | os.PathLike) for row in video)
        return "list" if several else "single"
    if hasattr(video, "__getitem__") and hasattr(video, "__len__"):
        return "dataset"
    return "iterator" if hasattr(video, "__iter__") else "single"
