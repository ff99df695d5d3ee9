"""An lmms-eval model: any video language model of transformers, behind a frame selector of this package."""

from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_causal_video.cli.select import make_selector
from hf_causal_video.selection import TokenBudget, ask_vlm
from hf_causal_video.utils.errors import require


class SelectedFrames(lmms):
    """Answers on chosen frames.

    Args:
        pretrained: folder or Hub id of the video language model.
        selector: causal, similarity, spread, uniform or random.
        checkpoint: VideoQA model of the causal selector, or dual encoder of similarity and spread.
        frames: budget in frames.
        tokens: budget in visual tokens, instead of frames.
        candidates: moments looked at, such as uniform-64.
        report_frames: end each answer with the seconds shown, which the task nextgqa compares with the true spans.
        device, dtype, seed: as in transformers.
        batch_size: 1; clips are answered one by one.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        selector: str = "causal",
        checkpoint: str = "",
        frames: int = 8,
        tokens: int | None = None,
        candidates: str | None = None,
        report_frames: bool = True,
        device: Any = "cpu",
        dtype: str = "auto",
        seed: int = 0,
        batch_size: int = 1,
        **unknown: Any,
    ):
        super().__init__()
        require(
            not unknown and int(batch_size) == 1,
            "model_args",
            found=f"{sorted(unknown)}, batch_size {batch_size}",
            expected="the arguments of SelectedFrames, batch_size=1",
            fix="see its docstring",
        )
        self.processor = AutoProcessor.from_pretrained(pretrained, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(pretrained, dtype=dtype, trust_remote_code=False)
        self.model = model.to(device).eval()
        self.selector = make_selector(selector, str(checkpoint), candidates, device, int(seed))
        self.budget = int(frames) if tokens is None else TokenBudget(int(tokens), self.processor)
        self.report_frames = report_frames

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer each request; the selector reads the question and the choices of the document, not the prompt."""
        answers = []
        for context, generation, visual_of, number, task, split in tqdm([one.args for one in requests]):
            document = self.task_dict[task][split][number]
            visuals = visual_of(document)
            choices = [document[f"a{i}"] for i in range(5)] if "a0" in document else None
            reply = ask_vlm(
                self.model,
                self.processor,
                self.selector,
                visuals[0],
                document.get("question", context),
                self.budget,
                choices,
                prompt=context,
                max_new_tokens=generation.get("max_new_tokens", 64),
            )
            text = reply.text
            for stop in generation.get("until", []):
                text = text.split(stop)[0] if stop else text
            if self.report_frames:
                text += f" <frames>{','.join(f'{second:.2f}' for second in reply.selection.timestamps_s)}</frames>"
            answers.append(text)
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not served: the answer is generated."""
        raise NotImplementedError("selected_frames generates; use a task with output_type generate_until")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not served: one question, one answer."""
        raise NotImplementedError("selected_frames answers one question at a time")
