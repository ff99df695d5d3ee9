"""What IGV and EIGV rely on, of every registered backbone."""

import pytest
import torch

from hf_causal_video.backbones import CoMem, Question, Video, VideoQABackbone, build_backbone, register_backbone
from hf_causal_video.utils.errors import CausalVideoError

pytestmark = pytest.mark.rounding

TEXT, FRAME, ANSWERS = 6, 10, 5
TINY = {
    "hga": {"hidden_dim": 4, "word_dim": 5, "bilinear_dim": 8, "bilinear_chunks": 2, "bilinear_rank": 2},
    "comem": {"hidden_size": 8, "word_dim": 5},
    "comem-2": {"hidden_size": 8, "word_dim": 5, "question_layers": 2, "appearance_dim": 4, "detach_memory": True},
    "mspan": {"hidden_size": 8},
    "mspan-3": {"hidden_size": 8, "num_scales": 3, "rounds": 1},
    "mspan-start": {"hidden_size": 8, "meeting": "start", "activation": "relu", "question_state": "first"},
    "plain": {"hidden_size": 8, "heads": 2, "intermediate_size": 8, "layers": 2},
    "pooling": {"hidden_size": 8},
}
CASES = pytest.mark.parametrize("case", TINY)
# A released choice: the question is the state of the first of three layers, so the others learn nothing.
UNUSED = {"mspan-start": ("encoder.weight_ih_l1", "_l2", "_hh_l1", "_ih_l1")}


def make(case: str, answers: int | None = ANSWERS) -> VideoQABackbone:
    backbone = build_backbone(case.split("-")[0], TEXT, FRAME, answers, TINY[case]).double()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone.eval()


def ask(backbone: VideoQABackbone, lengths: tuple[int, ...] = (4, 2, 3)) -> Question:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens = torch.randn(len(lengths), max(lengths), TEXT, dtype=torch.double, generator=_source(1))
    return backbone.encode_question(tokens, mask)


def watch(backbone: VideoQABackbone, frames: torch.Tensor, mask: torch.Tensor) -> Video:
    return backbone.encode_video(backbone.embed_frames(frames), mask)


def answer(backbone: VideoQABackbone, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return backbone.answer(backbone.fuse(ask(backbone), watch(backbone, frames, mask)))


def clip(rows: int = 3, frames: int = 7) -> torch.Tensor:
    return torch.randn(rows, frames, FRAME, dtype=torch.double, generator=_source(2))


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@CASES
@pytest.mark.parametrize("answers", [ANSWERS, None])
def test_the_calls_give_the_shapes_they_promise(case: str, answers: int | None):
    backbone = make(case, answers)
    question, mask = ask(backbone), torch.ones(3, 7, dtype=torch.bool)
    video = watch(backbone, clip(), mask)
    joint = backbone.fuse(question, video)
    assert question.pooled.shape == (3, backbone.question_dim) and joint.shape == (3, backbone.joint_dim)
    assert backbone.grounding_key(video).shape == (3, 7, backbone.question_dim)
    assert backbone.answer(joint).shape == (3, answers or 1)
    assert torch.equal(video.mask, mask)


@CASES
def test_a_frame_outside_the_mask_is_not_heard_and_leaves_no_gap(case: str):
    """Masked frames may hold anything, and the answer is that of the clip without them."""
    backbone, frames = make(case), clip()
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    expected = answer(backbone, frames, mask)
    other = torch.where(mask.unsqueeze(-1), frames, 5.0)
    torch.testing.assert_close(answer(backbone, other, mask), expected)
    kept = mask.sum(1)
    short = torch.zeros_like(frames)
    for row in range(3):
        short[row, : kept[row]] = frames[row, mask[row]]
    torch.testing.assert_close(answer(backbone, short, torch.arange(7) < kept[:, None]), expected)


@CASES
def test_a_row_answers_as_if_it_were_alone(case: str):
    backbone, frames = make(case), clip()
    mask = torch.arange(7) < torch.tensor([7, 1, 3])[:, None]
    together = answer(backbone, frames, mask)
    for row in range(3):
        one = torch.tensor([row])
        short, all_true = frames[one, : int(mask[row].sum())], mask[row, mask[row]].unsqueeze(0)
        alone = backbone.fuse(backbone.encode_question(*_tokens(row)), watch(backbone, short, all_true))
        torch.testing.assert_close(backbone.answer(alone), together[one])


def _tokens(row: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = (4, 2, 3)[row]
    tokens = torch.randn(3, 4, TEXT, dtype=torch.double, generator=_source(1))
    return tokens[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool)


@CASES
def test_embedding_frames_is_linear(case: str):
    backbone, a, b = make(case), clip(), clip().flip(0)
    mixed = backbone.embed_frames(0.3 * a - 2 * b)
    torch.testing.assert_close(mixed, 0.3 * backbone.embed_frames(a) - 2 * backbone.embed_frames(b))


@CASES
def test_pairs_are_the_rows_they_name(case: str):
    backbone = make(case)
    question, video = ask(backbone), watch(backbone, clip(2), torch.ones(2, 7, dtype=torch.bool))
    asked, seen = torch.tensor([2, 0, 1, 2]), torch.tensor([1, 1, 0, 0])
    pairs = backbone.fuse_pairs(question, video, asked, seen)
    torch.testing.assert_close(pairs, backbone.fuse(question.rows(asked), video.rows(seen)))


@CASES
def test_mixing_questions_by_one_and_zero_takes_either(case: str):
    backbone = make(case)
    question = ask(backbone, (4, 4, 4))
    other = question.rows(torch.tensor([1, 2, 0]))
    video = watch(backbone, clip(), torch.ones(3, 7, dtype=torch.bool))
    for weight, expected in ((1.0, question), (0.0, other)):
        mixed = backbone.mix_question(question, other, torch.tensor(weight))
        torch.testing.assert_close(backbone.fuse(mixed, video), backbone.fuse(expected, video))


@CASES
def test_every_weight_learns_and_the_frames_hear_of_it(case: str):
    backbone, frames = make(case).train(), clip().requires_grad_()
    answer(backbone, frames, torch.ones(3, 7, dtype=torch.bool)).square().sum().backward()
    silent = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not [name for name in silent if not any(part in name for part in UNUSED.get(case, ()))]
    assert (frames.grad.abs().amax(-1) > 0).double().mean() > 0.8  # at this width a ReLU can silence a whole frame


def test_detached_memories_send_no_gradient_through_their_first_value():
    """With no iteration left the memories are all that reaches the answer."""
    for detach, moves in ((True, False), (False, True)):
        backbone = CoMem(TEXT, FRAME, ANSWERS, hidden_size=8, word_dim=4, iterations=0, detach_memory=detach).double()
        frames = clip().requires_grad_()
        answer(backbone, frames, torch.ones(3, 7, dtype=torch.bool)).sum().backward()
        assert (frames.grad is not None) is moves


def test_the_registry_refuses_what_is_no_backbone():
    class Half(VideoQABackbone):
        def fuse(self, question: Question, video: Video) -> torch.Tensor:
            return question.pooled

    with pytest.raises(CausalVideoError, match="no encode_question, encode_video, answer;"):
        register_backbone("half", Half)
    with pytest.raises(CausalVideoError, match="found HGA under this name already"):
        register_backbone("hga", CoMem)
    with pytest.raises(CausalVideoError, match="unexpected keyword argument 'width'"):
        build_backbone("plain", TEXT, FRAME, ANSWERS, {"width": 3})
    with pytest.raises(CausalVideoError, match="found 'plane'; expected"):
        build_backbone("plane", TEXT, FRAME, ANSWERS)


def test_a_pooled_question_has_a_constant_length_unless_asked_otherwise() -> None:
    """Words of any length ask the same question of the strong baseline; the weak one does not."""
    tokens, mask = torch.randn(2, 4, TEXT, dtype=torch.float64), torch.ones(2, 4, dtype=torch.bool)
    for normalize_question in (True, False):
        options = {"hidden_size": 8, "normalize_question": normalize_question}
        pooling = build_backbone("pooling", TEXT, FRAME, ANSWERS, options).double()
        torch.nn.init.zeros_(pooling.word.bias)
        long, short = (pooling.encode_question(scale * tokens, mask).pooled for scale in (1.0, 0.1))
        assert torch.allclose(long, short, atol=0.1) is normalize_question
