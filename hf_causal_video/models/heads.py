"""The task classes among the Auto classes: they give a model only where its head answers in their way.

Why: one class of ours serves multiple choice and open answers, and which of them a checkpoint does stands in its
config. `AutoModelForMultipleChoice` of an open-ended checkpoint would load, and score a vocabulary as choices.
"""

from typing import Any

from hf_causal_video.models.auto import Method
from hf_causal_video.models.configuration import VideoQAConfig
from hf_causal_video.utils.errors import require
from hf_causal_video.utils.lazy import LazyClass


def with_head(method: Method, *, multiple_choice: bool) -> LazyClass:
    """Return a class to register under a task: it builds the method's model, and refuses a config of another head.

    Args:
        method: a question method.
        multiple_choice: whether the task scores choices, or a vocabulary of answers.

    Example:
        >>> from transformers import AutoModelForMultipleChoice
        >>> from hf_causal_video.models import BackboneConfig
        >>> AutoModelForMultipleChoice.from_config(BackboneConfig(num_answers=3))
        Traceback (most recent call last):
        hf_causal_video.utils.errors.CausalVideoError: BackboneForVideoQuestionAnswering for multiple choice: found ...
    """
    model = method.lazy_model
    task, other = ("multiple choice", "visual question answering")[:: 1 if multiple_choice else -1]
    auto = {
        "multiple choice": "AutoModelForMultipleChoice",
        "visual question answering": "AutoModelForVisualQuestionAnswering",
    }

    def check(config: VideoQAConfig) -> None:
        require(
            (config.num_answers is None) == multiple_choice,
            f"{model.__name__} for {task}",
            found=f"a checkpoint with num_answers={config.num_answers}",
            expected="num_answers=None" if multiple_choice else "a vocabulary of answers",
            fix=f"load it by AutoModel, or by {auto[other]}",
        )

    def from_pretrained(*args: Any, config: VideoQAConfig, **kwargs: Any) -> Any:
        check(config)
        return model.from_pretrained(*args, config=config, **kwargs)

    def from_config(config: VideoQAConfig, **kwargs: Any) -> Any:
        check(config)
        return model._from_config(config, **kwargs)

    return LazyClass(
        model.__name__,
        model.__module__,
        config_class=method.config,
        from_pretrained=staticmethod(from_pretrained),
        _from_config=staticmethod(from_config),
    )
