"""Causal video understanding on Hugging Face: it answers, shows the frames and objects it used, and proves that they
mattered.

Importing the package registers its models with the Auto classes of transformers and its pipelines by name: at once
where transformers is imported already, else as soon as it is. Every name below is imported on first use.

Shapes, named alike everywhere: B samples, T frames or clips, N objects of a frame, L question tokens, C feature
channels in, D hidden width, A answer candidates or vocabulary, K and M kept frames and objects, P predicates, S
memory entries. Units: seconds for spans and times (`start_s`, `end_s`, `time_s`), zero-based frame index, boxes xyxy
in [0, 1], rates in frames per second.
"""

from hf_causal_video.utils.lazy import after_import, lazy_names
from hf_causal_video.utils.version import __version__

_AUTO = "hf_causal_video.models.auto"
after_import("transformers.models.auto.configuration_auto", _AUTO, "register_configs")
after_import("transformers.models.auto.modeling_auto", _AUTO, "register_models")
after_import("transformers.models.auto.processing_auto", _AUTO, "register_processors")
after_import("transformers.pipelines", "hf_causal_video.pipelines.registration", "register_pipelines")

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BackboneConfig": "models",
        "BackboneForVideoQuestionAnswering": "models",
        "CausalVideoError": "utils.errors",
        "EIGVConfig": "models",
        "EIGVForVideoQuestionAnswering": "models",
        "Evidence": "models",
        "IGVConfig": "models",
        "IGVForVideoQuestionAnswering": "models",
        "IVRDConfig": "models",
        "IVRDForVideoRelationDetection": "models",
        "TranSTRConfig": "models",
        "TranSTRForVideoQuestionAnswering": "models",
        "VideoQABackbone": "backbones",
        "VideoQAOutput": "models",
        "VideoQAProcessor": "models",
        "VideoQuestionAnsweringPipeline": "pipelines",
        "VideoRelationDetectionPipeline": "pipelines",
        "VideoRelationProcessor": "models",
        "convert_official_checkpoint": "hub",
        "register_backbone": "backbones",
    },
)
__all__ += ["__version__"]
