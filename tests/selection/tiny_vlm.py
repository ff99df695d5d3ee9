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
    """A model of about 50 thousand random weights, and its whole processor (which needs torchvision)."""
    return build_model(family), build_processor(family)


def build_model(family: str):
    """A tiny random model."""
    torch.manual_seed(0)
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    text = {
        "vocab_size": len(words),
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
        return _qwen_model(family, ids, text)
    if family == "llava_onevision":
        config = hf.LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", **vision, "image_size": 32, "patch_size": 8},
            text_config={"model_type": "qwen2", **text},
            image_token_index=ids["image_token"],
            video_token_index=ids["video_token"],
            image_grid_pinpoints=[[32, 32]],
            vision_feature_layer=-1,
        )
        return hf.LlavaOnevisionForConditionalGeneration(config)
    if family == "smolvlm":
        config = hf.SmolVLMConfig(
            vision_config={**vision, "image_size": 32, "patch_size": 8},
            text_config={"model_type": "llama", **text},
            image_token_id=ids["image_token"],
            scale_factor=2,
        )
        return hf.SmolVLMForConditionalGeneration(config)
    config = hf.InternVLConfig(
        vision_config={**vision, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={"model_type": "qwen2", **text},
        image_token_id=ids["context_image_token"],
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return hf.InternVLForConditionalGeneration(config)


def _qwen_model(family, ids, text):
    kind = {"vision_start_token_id": ids["vision_start_token"], "vision_end_token_id": ids["vision_end_token"]}
    kind |= {"image_token_id": ids["image_token"], "video_token_id": ids["video_token"]}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
    if family == "qwen2_5_vl":
        vision |= {"window_size": 32, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
        config = hf.Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision, **kind)
        return hf.Qwen2_5_VLForConditionalGeneration(config)
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {**text, "head_dim": 8, "rope_parameters": {**rope, "mrope_interleaved": True}}
    return hf.Qwen3VLForConditionalGeneration(hf.Qwen3VLConfig(text_config=text, vision_config=vision, **kind))


def build_processor(family: str):
    """The processor of a tiny model."""
    words, square = tokenizer(), {"height": 32, "width": 32}
    if family in ("qwen2_5_vl", "qwen3_vl"):
        whole, video = hf.Qwen2_5_VLProcessor, hf.Qwen2VLVideoProcessor
        pixels, most = {"shortest_edge": 32 * 32, "longest_edge": 48 * 48}, 1
        if family == "qwen3_vl":
            whole, video, most = hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, 64
        images = hf.Qwen2VLImageProcessor(patch_size=8, size=pixels)
        pixels = {**pixels, "longest_edge": most * pixels["longest_edge"]}
        videos = video(patch_size=8, size=pixels, cap_pixels_per_frame=False)
        return whole(images, words, videos, chat_template=TEMPLATE)
    if family == "llava_onevision":
        return hf.LlavaOnevisionProcessor(
            hf.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=[[32, 32]]),
            words,
            hf.LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=TEMPLATE,
        )
    if family == "smolvlm":
        sides = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
        return hf.SmolVLMProcessor(
            hf.SmolVLMImageProcessor(**sides),
            words,
            hf.SmolVLMVideoProcessor(**sides, num_frames=4, fps=1),
            image_seq_len=4,
            chat_template=TEMPLATE,
        )
    return hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=square),
        words,
        hf.InternVLVideoProcessor(size=square),
        image_seq_length=4,
        chat_template=TEMPLATE,
    )


def inputs_by_hand(family: str, batch: int = 2, frames: int = 4):
    """Model inputs without a processor: random pictures, a question after them, and one word as the answer.

    Returns:
        The inputs, and how many frames (or merged pairs of frames) the visual tokens show.
    """
    words, draw = tokenizer(), torch.Generator().manual_seed(1)
    token = {"internvl": "<IMG_CONTEXT>", "smolvlm": "<image>"}.get(family, "<video>")
    units, extra = (frames // 2, 0) if family.startswith("qwen") else (frames, 0)
    if family == "llava_onevision":
        extra = 1  # a closing newline
    body = token * (units * 4 + extra)
    if family == "qwen3_vl":
        body = ("<|vision_start|>" + token * 4 + "<|vision_end|>") * units
    text = [
        f"<|vision_start|>{body}<|vision_end|> what is the star doing answer : {answer}" for answer in ("yes", "no")
    ]
    rows = [text[i % 2] for i in range(batch)]
    inputs = dict(words(rows, return_tensors="pt", padding=True, return_token_type_ids=False))
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, :-1] = -100
    if family.startswith("qwen"):
        patches = torch.randn(batch * units * 16, 3 * 2 * 8 * 8, generator=draw)
        grid = torch.tensor([[units, 4, 4]] * batch)
        kinds = 2 * (inputs["input_ids"] == words.convert_tokens_to_ids(token)).long()
        return {**inputs, "pixel_values_videos": patches, "video_grid_thw": grid, "mm_token_type_ids": kinds}, units
    pictures = torch.randn(batch, frames, 3, 32, 32, generator=draw)
    if family == "llava_onevision":
        return {**inputs, "pixel_values_videos": pictures}, frames
    return {**inputs, "pixel_values": pictures if family == "smolvlm" else pictures.flatten(0, 1)}, frames


def visual_token_ids(family: str) -> list[int]:
    """Ids of the placeholders of pictures in a tiny model's prompt."""
    token = {"internvl": "<IMG_CONTEXT>", "smolvlm": "<image>"}.get(family, "<video>")
    return [tokenizer().convert_tokens_to_ids(token)]
