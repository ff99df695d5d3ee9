"""The backbone that the README shows is wrapped by both methods, in fewer than forty lines."""

import re
from pathlib import Path

import pytest
import torch

import hf_causal_video
from hf_causal_video.backbones import BACKBONES, VideoQABackbone, build_backbone, register_backbone
from hf_causal_video.utils.errors import CausalVideoError

README = Path(hf_causal_video.__file__).parent / "models" / "backbone" / "README.md"


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture) -> None:
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "class " in block
    )
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    known = set(BACKBONES)
    try:
        exec(compile(code, str(README), "exec"), {"__name__": "example"})
    finally:
        for name in set(BACKBONES) - known:
            del BACKBONES[name]
    assert capsys.readouterr().out.count("tensor([[") == 2


def test_what_lacks_a_call_is_no_backbone() -> None:
    class Half(VideoQABackbone):
        def encode_question(self, tokens, mask):
            return None

    with pytest.raises(CausalVideoError, match="no encode_video, fuse, answer;"):
        register_backbone("half", Half)
    with pytest.raises(CausalVideoError, match="a subclass of VideoQABackbone"):
        register_backbone("half", torch.nn.Linear)
    assert "half" not in BACKBONES


def test_a_backbone_must_say_its_widths() -> None:
    class Silent(VideoQABackbone):
        encode_question = encode_video = fuse = answer = lambda self: None

    register_backbone("silent", Silent)
    try:
        with pytest.raises(CausalVideoError, match="no question_dim"):
            build_backbone("silent", 3, 4, None)
    finally:
        del BACKBONES["silent"]
