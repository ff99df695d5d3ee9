"""Table of methods, and their registration with the Auto classes of transformers."""

from dataclasses import dataclass
from typing import Any

from hf_causal_video.utils.lazy import LazyClass

MODELS = "hf_causal_video.models"


@dataclass(frozen=True)
class Method:
    """One method and its classes; a class is imported when it is asked for.

    Args:
        name: `model_type` of its config.
        folder: folder of `hf_causal_video/models` that holds it.
        prefix: prefix of its class names.
        task: "questions" or "relations".

    Example:
        >>> METHODS["igv"].config.__name__, METHODS["igv"].model.__name__
        ('IGVConfig', 'IGVForVideoQuestionAnswering')
    """

    name: str
    folder: str
    prefix: str
    task: str = "questions"

    @property
    def config(self) -> Any:
        """Config class."""
        return self.lazy_config.resolve()

    @property
    def model(self) -> Any:
        """Model class."""
        return self.lazy_model.resolve()

    @property
    def processor(self) -> Any:
        """Processor class."""
        return self.lazy_processor.resolve()

    @property
    def lazy_config(self) -> LazyClass:
        """Stand-in for the config class."""
        return LazyClass(f"{self.prefix}Config", f"{MODELS}.{self.folder}.configuration_{self.folder}")

    @property
    def lazy_model(self) -> LazyClass:
        """Stand-in for the model class, for registration while transformers itself is being imported."""
        head = "ForVideoQuestionAnswering" if self.task == "questions" else "ForVideoRelationDetection"
        module = f"{MODELS}.{self.folder}.modeling_{self.folder}"
        return LazyClass(self.prefix + head, module, config_class=self.config)

    @property
    def lazy_processor(self) -> LazyClass:
        """Stand-in for the processor class."""
        if self.task == "questions":
            return LazyClass("VideoQAProcessor", f"{MODELS}.processing_video_qa")
        return LazyClass("VideoRelationProcessor", f"{MODELS}.{self.folder}.processing_video_relation")


METHODS = {
    "transtr": Method("transtr", "transtr", "TranSTR"),
    "video_qa_backbone": Method("video_qa_backbone", "backbone", "Backbone"),
    "igv": Method("igv", "igv", "IGV"),
    "eigv": Method("eigv", "eigv", "EIGV"),
}
RELATION_METHODS = {"ivrd": Method("ivrd", "ivrd", "IVRD", task="relations")}
ALL_METHODS = METHODS | RELATION_METHODS


def register_configs() -> None:
    """Teach `AutoConfig` every method."""
    from transformers.models.auto.configuration_auto import AutoConfig

    for method in ALL_METHODS.values():
        AutoConfig.register(method.name, method.config, exist_ok=True)


def register_models() -> None:
    """Teach `AutoModel`, and the Auto classes of question answering, every method."""
    from transformers.models.auto import modeling_auto

    from hf_causal_video.models.heads import with_head

    for method in ALL_METHODS.values():
        modeling_auto.AutoModel.register(method.config, method.lazy_model, exist_ok=True)
        if method.task == "questions":
            choices = with_head(method, multiple_choice=True)
            open_ended = with_head(method, multiple_choice=False)
            modeling_auto.AutoModelForMultipleChoice.register(method.config, choices, exist_ok=True)
            modeling_auto.AutoModelForVisualQuestionAnswering.register(method.config, open_ended, exist_ok=True)


def register_processors() -> None:
    """Teach `AutoProcessor` every method."""
    from transformers.models.auto.processing_auto import AutoProcessor

    for method in ALL_METHODS.values():
        AutoProcessor.register(method.config, method.lazy_processor, exist_ok=True)
