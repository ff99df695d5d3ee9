"""Tiny random video language models with their processors, built in code: five families, nothing downloaded."""

import torch
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "smolvlm", "internvl")
SPECIAL = {
    "image_token": "<image>",
    "video_token": "<video>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "fake_image_token": "<fake>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
WORDS = "what is the star doing why did it move jumping spinning answer yes no < > seconds . : , 0 1 2 3 4 5 6 7 8 9"
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'video' %}"
    "<video>{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} answer :{% endif %}"
)


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Words, and the special tokens of all five families by attribute."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS.split()])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[PAD]", extra_special_tokens=SPECIAL
    )
    fast.padding_side = "left"
    return fast


def build(family: str):
    """A model of about 50 thousand random weights, and its whole processor."""
    torch.manual_seed(0)
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    size = len(words)
    text = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    if family in ("qwen2_5_vl", "qwen3_vl"):
        return _qwen(family, words, ids, text)
    if family == "llava_onevision":
        config = hf.LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", **vision, "image_size": 32, "patch_size": 8},
            text_config={"model_type": "qwen2", **text},
            image_token_index=ids["image_token"],
            video_token_index=ids["video_token"],
            image_grid_pinpoints=[[32, 32]],
            vision_feature_layer=-1,
        )
        processor = hf.LlavaOnevisionProcessor(
            hf.LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=[[32, 32]]),
            words,
            hf.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=TEMPLATE,
        )
        return hf.LlavaOnevisionForConditionalGeneration(config), processor
    if family == "smolvlm":
        config = hf.SmolVLMConfig(
            vision_config={**vision, "image_size": 32, "patch_size": 8},
            text_config={"model_type": "llama", **text},
            image_token_id=ids["image_token"],
            scale_factor=2,
        )
        sides = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
        processor = hf.SmolVLMProcessor(
            hf.SmolVLMImageProcessor(**sides),
            words,
            hf.SmolVLMVideoProcessor(**sides, num_frames=4, fps=1),
            image_seq_len=4,
            chat_template=TEMPLATE,
        )
        return hf.SmolVLMForConditionalGeneration(config), processor
    config = hf.InternVLConfig(
        vision_config={**vision, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={"model_type": "qwen2", **text},
        image_token_id=ids["context_image_token"],
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size={"height": 32, "width": 32}),
        words,
        hf.InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=4,
        chat_template=TEMPLATE,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _qwen(family, words, ids, text):
    kind = {"vision_start_token_id": ids["vision_start_token"], "vision_end_token_id": ids["vision_end_token"]}
    kind |= {"image_token_id": ids["image_token"], "video_token_id": ids["video_token"]}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    if family == "qwen2_5_vl":
        vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
        vision |= {"window_size": 32, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
        config = hf.Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision, **kind)
        sizes = {"shortest_edge": 32 * 32, "longest_edge": 48 * 48}
        processor = hf.Qwen2_5_VLProcessor(
            hf.Qwen2VLImageProcessor(patch_size=8, size=sizes),
            words,
            hf.Qwen2VLVideoProcessor(patch_size=8, size=sizes, cap_pixels_per_frame=False),
            chat_template=TEMPLATE,
        )
        return hf.Qwen2_5_VLForConditionalGeneration(config), processor
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {**text, "head_dim": 8, "rope_parameters": {**rope, "mrope_interleaved": True}}
    config = hf.Qwen3VLConfig(text_config=text, vision_config=vision, **kind)
    sizes = {"shortest_edge": 32 * 32, "longest_edge": 48 * 48 * 64}
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(patch_size=8, size=sizes),
        words,
        hf.Qwen3VLVideoProcessor(patch_size=8, size=sizes, cap_pixels_per_frame=False),
        chat_template=TEMPLATE,
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor
