"""Every test of transformers that does not run here, and why. None is left out because a model of ours is wrong."""

from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Exclusion:
    """A test that is left out.

    Args:
        test: its name, with wildcards.
        classes: the classes of tests it is left out of, with wildcards.
        reason: why.
    """

    test: str
    classes: str
    reason: str


RETURN_TENSORS = "return_tensors stands in the signature, so that help() shows its one value"
BACKBONES = "Test[BIE]*"  # TestBackbone, TestIGV, TestEIGV, TestIVRD
EXCLUDED = [
    Exclusion(
        "test_eager_matches_sdpa_inference*",
        "TestTranSTR",
        "it extends boolean masks by randint(high=5); tests/models/test_with_transformers.py compares the two",
    ),
    Exclusion("test_num_layers_is_small", "TestTranSTR", "num_hidden_layers stands for the nine attention maps here"),
    Exclusion(
        "test_can_set_attention_dynamically_composite_model",
        BACKBONES,
        "it sets sdpa on the outer network, which has no attention layer",
    ),
    Exclusion(
        "test_capture_outputs_decorator",
        BACKBONES,
        "it asks the outer network for the attention maps that only the nested text encoder has; they are refused",
    ),
    Exclusion("test_model_get_set_embeddings", "TestIVRD", "it reads tracks and has no vocabulary"),
    Exclusion("test_model_outputs_equivalence", "Test[EI]*", "it subtracts boolean outputs (causal_mask, pair_mask)"),
    Exclusion("test_call_arguments_default_none", "Test*Processor", RETURN_TENSORS),
    Exclusion("test_call_arguments_not_in_processor_kwargs", "Test*Processor", RETURN_TENSORS),
    Exclusion(
        "test_flat_kwarg_applied_when_modality_dict_lacks_it",
        "Test*Processor",
        "it passes do_sample_frames; our processors read features, and refuse an option that would have no effect",
    ),
    Exclusion(
        "test_init_arguments_not_in_processor_kwargs",
        "TestQuestionProcessor",
        "max_length is saved with the processor: a longer string is an error, and never cut without a word",
    ),
    Exclusion(
        "test_model_input_names", "Test*Processor", "it gives text alone; our processors need features or tracks"
    ),
]


def exclusion(test: str, classes: str) -> Exclusion | None:
    """Return the entry of a test, None if it runs."""
    return next((one for one in EXCLUDED if fnmatch(test, one.test) and fnmatch(classes, one.classes)), None)
