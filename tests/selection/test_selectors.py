"""Laws of the selectors: the budget is met, the order is that of the scores, bad input is named."""

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_causal_video import TranSTRConfig, TranSTRForVideoQuestionAnswering, VideoQAProcessor
from hf_causal_video.models import VideoQAOutput
from hf_causal_video.models.backbone import BackboneForVideoQuestionAnswering
from hf_causal_video.models.eigv import EIGVForVideoQuestionAnswering
from hf_causal_video.models.igv import IGVForVideoQuestionAnswering
from hf_causal_video.selection import (
    CausalSelector,
    Clip,
    DualEncoder,
    FrameSelector,
    RandomSelector,
    Ranking,
    SimilaritySelector,
    UniformSelector,
)
from hf_causal_video.selection.rules import (
    RULES,
    best_and_different,
    determinantal,
    inverse_transform,
    over_scenes,
    split_judge,
)
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import tiny_text_config, world_tokenizer

QUESTION = "who is jumping"
TIMES = [0.5 + second for second in range(12)]


class Words:
    """An encoder whose text vector is the first axis, so that the similarity of a frame is its first component."""

    def encode_text(self, texts):
        return torch.eye(4)[:1].repeat(len(texts), 1)

    def encode_frames(self, frames):
        return torch.stack([torch.from_numpy(frame[0, 0, :1]).float() for frame in frames]).expand(-1, 4)


def transtr(num_answers=None, similarities=0, kept=3):
    torch.manual_seed(0)
    tokenizer = world_tokenizer()
    config = TranSTRConfig(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), hidden_size=16, num_attention_heads=2,
        intermediate_size=16, frame_feature_dim=4, num_frames_kept=kept, num_objects_kept=0, num_answers=num_answers,
        num_similarities=similarities,
    )  # fmt: skip
    vocabulary = None if num_answers is None else [str(i) for i in range(num_answers)]
    return TranSTRForVideoQuestionAnswering(config).eval(), VideoQAProcessor(tokenizer, answer_vocabulary=vocabulary)


@pytest.fixture(scope="module")
def causal():
    return CausalSelector(*transtr())


@pytest.fixture(scope="module")
def features():
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(1))


def every(causal):
    plain = [
        UniformSelector(),
        RandomSelector(),
        SimilaritySelector(Words()),
        SimilaritySelector(Words(), 0.5),
        causal,
    ]
    return plain + [SimilaritySelector(Words(), rule=rule) for rule in RULES if rule != "best"]


@pytest.mark.parametrize("number", range(8))
def test_every_selector_meets_every_budget_in_order_of_time_with_a_score_a_candidate(causal, features, number):
    selector = every(causal)[number]
    for budget in range(1, 13):
        chosen = selector.select(features, QUESTION, budget, timestamps_s=TIMES)
        assert len(set(chosen.frame_indices)) == budget == len(chosen.ranked)
        assert chosen.frame_indices == sorted(chosen.ranked) and len(chosen.scores) == 12
        assert chosen.timestamps_s == [TIMES[i] for i in chosen.frame_indices]
        assert f"{budget} of 12 frames" in chosen.reason


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_a_smaller_budget_is_the_head_of_a_larger_one(causal, features, number):
    selector = every(causal)[number]
    long = selector.select(features, QUESTION, 9, timestamps_s=TIMES).ranked
    assert selector.select(features, QUESTION, 4, timestamps_s=TIMES).ranked == long[:4]


def test_the_causal_choice_begins_with_what_the_model_keeps_and_goes_on_down_its_scores(causal, features):
    model, processor = causal.model, causal.processor
    output = model(**processor(QUESTION, ["a", "b"], frame_features=features))
    chosen = causal.select(features, QUESTION, 7, timestamps_s=TIMES)
    kept = set(output.kept_frames[0].tolist())
    assert set(chosen.ranked[: len(kept)]) == kept
    assert chosen.ranked == output.frame_scores[0].argsort(descending=True).tolist()[:7]
    torch.testing.assert_close(torch.tensor(chosen.scores), output.frame_scores[0], check_dtype=False)


def test_the_choice_says_which_frames_the_model_keeps_and_which_come_next(causal, features):
    output = causal.model(**causal.processor(QUESTION, ["a", "b"], frame_features=features))
    keeps = sorted(set(output.kept_frames[0].tolist()))
    chosen = causal.select(features, QUESTION, 7, timestamps_s=TIMES)
    assert chosen.kept == keeps and "the other 4 merely come next in its ranking" in chosen.reason
    assert chosen.to_dict()["kept"] == keeps
    within = causal.select(features, QUESTION, 2, timestamps_s=TIMES)
    assert within.kept == within.frame_indices and "merely" not in within.reason
    assert UniformSelector().select(features, None, 2, timestamps_s=TIMES).kept is None


@pytest.mark.parametrize("model_class", [IGVForVideoQuestionAnswering, EIGVForVideoQuestionAnswering])
@pytest.mark.parametrize("num_answers", [None, 5])
def test_igv_and_eigv_serve_with_their_causal_scene_first(features, model_class, num_answers):
    tokenizer = world_tokenizer()
    config = model_class.config_class(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), backbone="pooling", frame_feature_dim=4,
        backbone_config={"hidden_size": 16}, num_answers=num_answers,
    )  # fmt: skip
    torch.manual_seed(0)
    model = model_class(config).eval()
    processor = VideoQAProcessor(tokenizer, answer_vocabulary=None if num_answers is None else list("abcde"))
    choices = None if num_answers is not None else ["star", "moon"]
    selector = CausalSelector(model, processor)
    chosen = selector.select(features, QUESTION, 5, choices, timestamps_s=TIMES)
    output = model(**processor(QUESTION, choices, frame_features=features), output_evidence=True)
    assert chosen.ranked == output.frame_scores[0].argsort(descending=True)[:5].tolist()
    causal = set(output.causal_mask[0].nonzero().flatten().tolist())
    assert set(chosen.ranked[: len(causal)]) <= causal and f"it keeps {len(causal)} itself" in chosen.reason
    if choices and model_class is EIGVForVideoQuestionAnswering:  # it grounds by question and answer
        with pytest.raises(CausalVideoError, match="depend on them"):
            selector.select(features, QUESTION, 5, timestamps_s=TIMES)
    elif choices:  # IGV grounds by the question
        assert selector.select(features, QUESTION, 5, timestamps_s=TIMES).ranked == chosen.ranked


def test_a_plain_backbone_has_no_evidence_to_select_by(features):
    tokenizer = world_tokenizer()
    config = BackboneForVideoQuestionAnswering.config_class(
        text_config=tiny_text_config(len(tokenizer), 16, 1).to_dict(), backbone="pooling", frame_feature_dim=4,
        backbone_config={"hidden_size": 16}, num_answers=5,
    )  # fmt: skip
    selector = CausalSelector(BackboneForVideoQuestionAnswering(config), VideoQAProcessor(tokenizer, list("abcde")))
    with pytest.raises(CausalVideoError, match="BackboneForVideoQuestionAnswering, which scores all frames alike"):
        selector.select(features, QUESTION, 5, timestamps_s=TIMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_of_the_model_does_not_stop_the_choice(features, dtype):
    model, processor = transtr(num_answers=5)
    chosen = CausalSelector(model.to(dtype), processor).select(features, QUESTION, 4, timestamps_s=TIMES)
    assert len(chosen.frame_indices) == 4 and np.isfinite(chosen.scores).all()


def test_a_model_in_training_is_asked_without_dropout_and_left_in_training(features):
    model, processor = transtr()
    selector = CausalSelector(model.train(), processor)
    first, second = (selector.select(features, QUESTION, 4, timestamps_s=TIMES).scores for _ in range(2))
    assert first == second and model.training


class Bare(torch.nn.Module):
    """A model whose output has whatever scores it is given."""

    device = torch.device("cpu")

    def __init__(self, scores):
        super().__init__()
        self.config, self.scores = TranSTRConfig(num_answers=3), scores

    def forward(self, **inputs):
        return VideoQAOutput(frame_scores=self.scores)


def test_a_model_without_evidence_says_what_is_missing(features):
    with pytest.raises(CausalVideoError, match="without frame_scores.*TranSTR, IGV, EIGV"):
        CausalSelector(Bare(None), transtr(3)[1]).select(features, QUESTION, 2, timestamps_s=TIMES)


def test_scores_that_are_no_numbers_are_refused_and_padding_is_never_chosen(features):
    scores = torch.arange(12.0)[None]
    scores[0, 3] = float("nan")
    with pytest.raises(CausalVideoError, match="invalid frame scores"):
        CausalSelector(Bare(scores), transtr(3)[1]).select(features, QUESTION, 2, timestamps_s=TIMES)
    scores[0, 3:] = -torch.inf
    selector = CausalSelector(Bare(scores), transtr(3)[1])
    assert selector.select(features, QUESTION, 3, timestamps_s=TIMES).ranked == [2, 1, 0]
    with pytest.raises(CausalVideoError, match="4 frames; expected 1 to 3"):
        selector.select(features, QUESTION, 4, timestamps_s=TIMES)


def test_scores_that_depend_on_choices_nobody_gave_are_refused(features):
    class Reads(Bare):
        def forward(self, **inputs):  # other words in place of the choices, other scores
            return VideoQAOutput(frame_scores=torch.stack([torch.arange(12.0), torch.arange(12.0).flip(0)]))

    model = Reads(None)
    model.config = TranSTRConfig()
    selector = CausalSelector(model, transtr()[1])
    with pytest.raises(CausalVideoError, match="depend on them"):
        selector.select(features, QUESTION, 2, timestamps_s=TIMES)
    assert selector.select(features, QUESTION, 2, choices=["a", "b"], timestamps_s=TIMES).ranked == [11, 10]


@pytest.mark.parametrize("budget", [0, -1, 13, True, 2.5])
def test_a_budget_of_zero_or_beyond_the_clip_is_refused(features, budget):
    with pytest.raises(CausalVideoError, match="expected 1 to 12") as caught:
        UniformSelector().select(features, QUESTION, budget, timestamps_s=TIMES)
    assert ("one frame or more" in caught.value.fix) == (budget in (0, -1))


@pytest.mark.parametrize(
    "times", [None, TIMES[:-1], [*TIMES[:-1], TIMES[0]], [0.0] * 12, [*TIMES[:-1], float("nan")], [-1.0, *TIMES[1:]]]
)
def test_missing_and_disordered_times_are_refused(features, times):
    with pytest.raises(CausalVideoError, match="times of the frames"):
        UniformSelector().select(features, QUESTION, 2, timestamps_s=times)


@pytest.mark.parametrize("question", [None, "", "  "])
def test_a_question_is_asked_for_by_those_who_read_it(features, question):
    UniformSelector().select(features, question, 2, timestamps_s=TIMES)
    with pytest.raises(CausalVideoError, match="question"):
        SimilaritySelector(Words()).select(features, question, 2, timestamps_s=TIMES)


def test_widths_of_two_encoders_are_refused():
    with pytest.raises(CausalVideoError, match="both from one encoder"):
        SimilaritySelector(Words()).select(torch.zeros(3, 7), QUESTION, 2, timestamps_s=[0, 1, 2])


def test_chance_depends_on_seed_and_question_only(features):
    def choose(seed, question):
        return RandomSelector(seed).select(features, question, 5, timestamps_s=TIMES).frame_indices

    assert choose(0, "a") == choose(0, "a")
    assert len({tuple(choose(seed, question)) for seed in range(4) for question in "abc"}) > 6


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(0, 2**16), st.floats(0, 1))
def test_spread_takes_each_frame_once_and_begins_with_the_best(total, seed, diversity):
    draw = np.random.default_rng(seed)
    scores, vectors = draw.random(total), draw.standard_normal((total, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    taken = best_and_different(scores, vectors, total, diversity)
    assert sorted(taken) == list(range(total)) and taken[0] == scores.argmax()


def test_spread_avoids_a_copy_that_similarity_takes():
    frames = torch.tensor([[0.81, 0.6, 0, 0], [0.8, 0.6, 0, 0], [0.7, -0.7, 0, 0], [0, 0, 0, 1.0]])
    near = SimilaritySelector(Words()).select(frames, QUESTION, 2, timestamps_s=range(4))
    wide = SimilaritySelector(Words(), 0.5).select(frames, QUESTION, 2, timestamps_s=range(4))
    assert near.frame_indices == [0, 1] and wide.frame_indices == [0, 2]


def test_a_scene_of_good_frames_beats_a_lone_peak_and_a_scene_of_no_width_is_the_frame_itself(causal, features):
    frames = torch.tensor([[0.9, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0.6, 1, 0, 0], [0.6, 1, 0, 0], [0.6, 1, 0, 0]])
    alone = SimilaritySelector(Words()).select(frames, QUESTION, 1, timestamps_s=range(6))
    scene = SimilaritySelector(Words(), scene_s=2.0).select(frames, QUESTION, 1, timestamps_s=range(6))
    assert alone.frame_indices == [0] and scene.frame_indices == [4] and "with the 2 s around each" in scene.reason
    narrow = CausalSelector(causal.model, causal.processor, scene_s=0.5).select(
        features, QUESTION, 5, timestamps_s=TIMES
    )
    assert narrow.ranked == causal.select(features, QUESTION, 5, timestamps_s=TIMES).ranked
    with pytest.raises(CausalVideoError, match="scene"):
        UniformSelector(scene_s=-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**16), st.floats(0.0, 40.0))
def test_scenes_stay_within_the_scores_and_padding_stays_out(total, seed, width):
    draw = np.random.default_rng(seed)
    scores, times = draw.standard_normal(total), np.cumsum(draw.random(total) + 0.1)
    scores[draw.random(total) < 0.2] = -np.inf
    real = np.isfinite(scores)
    found = over_scenes(scores, times, width)
    assert (np.isfinite(found) == real).all()
    if real.any():
        assert found[real].min() >= scores[real].min() - 1e-9 and found[real].max() <= scores[real].max() + 1e-9


def test_of_more_frames_than_moments_those_on_screen_are_candidates():
    video = np.zeros((100, 4, 4, 3), np.uint8)
    clip = Clip.read(video, np.arange(100) / 10, "uniform-5")
    assert clip.positions.tolist() == [10, 30, 50, 70, 90]
    chosen = UniformSelector("uniform-5").select(clip, None, 2)
    assert chosen.frame_indices == [30, 70] and chosen.timestamps_s == [3.0, 7.0]


def test_an_own_selector_needs_one_method(features):
    class Last(FrameSelector):
        def rank(self, clip, question, choices):
            return Ranking(clip.times_s, "that come last")

    assert Last().select(features, QUESTION, 2, timestamps_s=TIMES).frame_indices == [10, 11]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_dual_encoders_of_transformers_give_unit_vectors_of_one_width(tmp_path, kind):
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**side, "vocab_size": 99, "max_position_embeddings": 12, "projection_size": 16, "eos_token_id": 3}
    eye = {**side, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    if kind == "clip":
        model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=eye, projection_dim=8))
        images = hf.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    else:
        model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=eye))
        images = hf.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    for part in (model, images, world_tokenizer()):
        part.save_pretrained(tmp_path)
    encoder = DualEncoder(str(tmp_path))
    video = np.random.default_rng(0).integers(0, 255, (6, 20, 24, 3), dtype=np.uint8)
    words, frames = encoder.encode_text([QUESTION, "star"]), encoder.encode_frames(list(video))
    assert words.shape[1] == frames.shape[1] and len(words) == 2 and len(frames) == 6
    torch.testing.assert_close(words.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(frames.norm(dim=1), torch.ones(6))
    chosen = SimilaritySelector(encoder).select(video, QUESTION, 3, timestamps_s=range(6))
    assert chosen.ranked == (frames @ words[0]).argsort(descending=True)[:3].tolist()
    with pytest.raises(CausalVideoError, match="from 1 to 12"):
        encoder.encode_text(["who is " * 20])


def test_a_one_sided_network_is_no_dual_encoder(tmp_path):
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**side, image_size=16, patch_size=8))
    for part in (model, hf.CLIPImageProcessorPil(size={"shortest_edge": 16}), world_tokenizer()):
        part.save_pretrained(tmp_path)
    with pytest.raises(CausalVideoError, match="no layer 'projected'|cannot read a question"):
        DualEncoder(str(tmp_path))


scores_of_clips = st.lists(st.one_of(st.floats(-5, 5), st.just(-np.inf)), min_size=1, max_size=24).filter(
    lambda scores: bool(np.isfinite(scores).any())
)


@settings(max_examples=200, deadline=None)
@given(scores=scores_of_clips, seed=st.integers(0, 99), data=st.data())
def test_every_rule_takes_distinct_frames_that_may_be_chosen_best_first(scores, seed, data):
    scores = np.array(scores)
    vectors = np.random.default_rng(seed).normal(size=(len(scores), 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count = data.draw(st.integers(1, int(np.isfinite(scores).sum())))
    for name, (rule, _) in RULES.items():
        chosen = rule(scores, count, vectors)
        assert len(set(chosen.tolist())) == count == len(chosen) and np.isfinite(scores[chosen]).all(), name
        if name != "determinantal":
            assert (np.diff(scores[chosen]) <= 0).all(), name


def test_inverse_transform_follows_the_score_between_even_spacing_and_the_peak():
    scores = np.array([0.0, 0.1, 0.2, 0.9, 1.0, 0.8, 0.1, 0.0])
    assert set(inverse_transform(scores, 4, power=0).tolist()) == {0, 2, 4, 6}
    assert set(inverse_transform(scores, 3).tolist()) == {3, 4, 5}


def test_split_judge_takes_a_peak_that_stands_out_and_spreads_over_what_does_not():
    peak = np.zeros(16)
    peak[[4, 5]] = 1.0
    assert set(split_judge(peak, 2).tolist()) == {4, 5}
    hills = np.tile([0.2, 0.6, 1.0, 0.6], 4)
    assert sorted(split_judge(hills, 4).tolist()) == [2, 6, 10, 14]
    assert sorted(split_judge(hills, 4, threshold=0).tolist()) == [2, 6, 10, 14]
    slope = np.linspace(0, 1, 16)
    assert sorted(split_judge(slope, 4, threshold=0).tolist()) == [12, 13, 14, 15]
    assert sorted(split_judge(slope, 4).tolist()) == [3, 7, 11, 15]


def test_the_determinant_of_the_choice_is_that_of_the_greedy_definition():
    draw = np.random.default_rng(4)
    scores, vectors = draw.random(9), draw.normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quality = np.exp(3 * (scores - scores.min()) / np.ptp(scores))
    kernel = quality[:, None] * (vectors @ vectors.T + 1e-6 * np.eye(9)) * quality
    taken: list[int] = []
    for _ in range(4):
        volume = {i: np.linalg.det(kernel[np.ix_([*taken, i], [*taken, i])]) for i in set(range(9)) - set(taken)}
        taken.append(max(volume, key=volume.__getitem__))
    assert determinantal(scores, vectors, 4).tolist() == taken


def test_a_rule_that_compares_frames_needs_vectors_and_an_unknown_rule_is_named(causal, features):
    selector = CausalSelector(causal.model, causal.processor)
    selector.rule = "determinantal"
    with pytest.raises(CausalVideoError, match="without vectors of the frames"):
        selector.select(features, QUESTION, 2, timestamps_s=TIMES)
    with pytest.raises(CausalVideoError, match="unknown rule: found .bolt.; expected one of best, inverse_transform"):
        SimilaritySelector(Words(), rule="bolt")
    with pytest.raises(CausalVideoError, match="one way to spread frames"):
        SimilaritySelector(Words(), 0.5, rule="split_judge")
