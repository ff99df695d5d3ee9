"""The proof: what is removed is the event, the verdict follows from the answers, and the words from the verdict."""

import json

import numpy as np
import pytest
import torch

from hf_causal_video.models.outputs import Evidence, EvidenceFrame, asking_for_evidence
from hf_causal_video.stress import stress_test
from hf_causal_video.stress.ablation import Proof, Verdict, event_frames, judge, scores_of_evidence, unique_labels
from hf_causal_video.viewer import EvidenceCase, draw_strip, report_html
from hf_causal_video.viewer.answer import notes_of
from hf_causal_video.viewer.words import percent, reason_in_words, spans_in_words, verdict_in_words
from tests.models.cases import CASES
from tests.viewer.test_pictures import make_case


def event(kept: list[int], total: int, times=None) -> list[int]:
    mask = torch.zeros(1, total, dtype=torch.bool)
    mask[0, kept] = True
    return event_frames(mask, torch.ones_like(mask), times)[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("kept", "total", "expected"),
    [
        ([3, 5], 16, [3, 4, 5]),  # a single frame between two kept ones
        ([3, 6], 16, [3, 4, 5, 6]),  # two of sixteen are an eighth of the clip
        ([3, 7], 16, [3, 7]),
        ([0, 2], 3, [0, 1, 2]),  # a single frame, although it is a third of the clip
        ([40, 60], 160, list(range(40, 61))),  # as long in time, whatever the number of frames
        ([40, 62], 160, [40, 62]),
        ([], 4, []),
        ([2], 4, [2]),
    ],
)
def test_short_gaps_belong_to_the_event(kept, total, expected):
    assert event(kept, total) == expected


def test_a_gap_is_measured_in_seconds_where_times_are_known():
    times = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 40.0, 60.0, 80.0]])
    assert event([0, 4], 8, times) == [0, 1, 2, 3, 4], "four seconds of ninety"
    assert event([0, 4], 8) == [0, 4], "three of eight frames"


def test_padding_is_neither_event_nor_part_of_the_clip():
    kept = torch.tensor([[True, False, False, True, False, False]])
    mask = torch.tensor([[True, True, True, True, False, False]])
    assert event_frames(kept, mask).tolist() == [[True, False, False, True, False, False]]
    assert event_frames(~kept, mask)[0, 4:].tolist() == [False, False]


def test_removal_takes_the_event_so_that_a_frame_in_between_does_not_answer():
    """A model that reads its answer off any frame of the event, and points at the first and the last of it."""

    def answer(frames, question, choices):
        shown = frames[frames[:, 0] > 0, 0]
        return np.eye(3)[int(shown[0]) - 1] if len(shown) else np.array([0.5, 0.3, 0.2])

    rows = []
    for index in range(30):
        frames = np.zeros((16, 1))
        frames[4:7] = 1 + index % 3
        rows.append(
            {"question_id": f"v{index}_0", "video_id": f"v{index}", "question": "which", "choices": list("abc"),
             "answer": index % 3, "frames": frames, "timestamps_s": np.arange(16) + 0.5}
        )  # fmt: skip
    report = stress_test(answer, rows, evidence=lambda asked: [[4, 6]] * len(asked), progress=False, resamples=10)
    level = {row["test"]: row["accuracy"] for row in report["rows"]}
    assert level["evidence_only"] == 100 and level["evidence_removed"] == pytest.approx(100 / 3, abs=0.1)
    assert (report["evidence_share"], report["removed_share"]) == pytest.approx((200 / 16, 300 / 16), abs=0.01)


def test_the_verdict_is_read_off_the_answers():
    evidence = Evidence("run", 0, 0.6, [0.6, 0.3, 0.1], ["run", "sit", "run"], spans=[(0.0, 2.0)])
    removed = torch.tensor([[True, False, False]])
    proof = Proof(torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[0.2, 0.5, 0.3]]), removed)
    verdict = judge(evidence, evidence.choices, proof, 0, torch.tensor([1.0, 3.0, 5.0]))
    assert verdict.sufficient is True and verdict.necessary is True and verdict.removed_s == [(0.0, 2.0)]
    assert verdict.scores_without == pytest.approx({"run": 0.2, "sit": 0.5, "run (2)": 0.3})
    stays = judge(
        evidence, evidence.choices, Proof(torch.full((1, 3), torch.nan), torch.tensor([[0.2, 0.1, 0.7]]), removed)
    )
    assert stays.necessary is False, "the other of two equal choices is the same answer"
    assert stays.sufficient is None and stays.scores_only is None
    assert json.loads(json.dumps(verdict))["scores_only"]["sit"] == pytest.approx(0.4)


def test_an_answer_that_appears_only_without_the_evidence_is_listed():
    words = [f"word {index}" for index in range(9)]
    evidence = Evidence("word 0", 0, 0.9, [0.9, 0.1], ["word 0", "word 1"])
    proof = Proof(torch.full((1, 9), torch.nan), torch.eye(9)[[7]], torch.ones(1, 4).bool())
    verdict = judge(evidence, words, proof)
    assert verdict.answer_without == "word 7" and verdict.scores_without == {"word 0": 0, "word 1": 0, "word 7": 1}


@pytest.mark.parametrize("necessary", [True, False, None])
def test_because_of_is_said_only_where_the_answer_falls_without(necessary):
    scores = {True: [0.2, 0.5, 0.1, 0.1, 0.1], False: [0.5, 0.2, 0.1, 0.1, 0.1], None: None}[necessary]
    case = make_case(scores_without=scores, scores_only=[0.7, 0.1, 0.1, 0.1, 0.0])
    assert case.verdict.necessary is necessary and case.verdict.sufficient is True
    page = report_html([case])
    assert ("because of" in page) == (necessary is True)
    assert ("also answered without these frames" in page) == (necessary is False)
    assert draw_strip(case).height > draw_strip(make_case()).height, "the verdict has its lines in the picture"


def test_both_sentences_have_their_numbers():
    case = make_case(scores_without=[0.2, 0.5, 0.1, 0.1, 0.1], scores_only=[0.7, 0.1, 0.1, 0.1, 0.0])
    only, without = verdict_in_words(case.verdict, 0, 0.6)
    assert only == "From the evidence alone: 60.0 % to 70.0 %, the answer stays."
    assert without == "With the evidence removed: 60.0 % to 20.0 %, the answer becomes “to sit” (50.0 %)."
    assert "not asked" in verdict_in_words(Verdict(), 0, 0.6)[0]


def test_words_of_time_and_share():
    assert spans_in_words([(110, 121.4), (3, 5)]) == "3.0 to 5.0 s, 110.0 s to 2:01"
    assert reason_in_words(None, []) == "looked at frames of unknown time"
    assert [percent(share) for share in (0, 1, 0.99999, 0.5)] == ["0 %", "100 %", "99.9 %", "50.0 %"]
    assert percent(0.00001) == "< 0.01 %"


def test_equal_choices_keep_their_own_scores():
    assert unique_labels(["a", "a", "a (2)", "a"]) == ["a", "a (2)", "a (2) (2)", "a (3)"]


def test_a_result_of_the_pipeline_becomes_a_case_with_its_notes():
    evidence = Evidence("run", 0, 0.6, [0.6, 0.4], ["run", "sit"], [(0.0, 2.0)], [EvidenceFrame(0, 1.0, 1.0)])
    result = {
        "evidence": evidence, "frames": [np.zeros((4, 6, 3), np.uint8)] * 2, "times_s": torch.tensor([1.0, 3.0]),
        "verdict": Verdict(True, False, {"run": 0.7, "sit": 0.3}, {"run": 0.6, "sit": 0.4, "hop": 0.0}, "run", "run"),
        "unknown_words": ["yodel"], "unlike_training": {"distance": 7.123, "limit": 2.0, "unlike": True},
    }  # fmt: skip
    case = EvidenceCase.of_result("what does he do", result, title="clip.mp4", true_answer="run")
    assert case.scores_without == [0.6, 0.4] and case.right
    page = report_html([case])
    for words in ("yodel", "Unlike the training clips: 7.12", "also answered without these frames"):
        assert words in page
    assert notes_of(result | {"unlike_training": None, "unknown_words": []}) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.keeps or "causal" in case.name or "igv" in case.name],
                         ids=lambda case: case.name)  # fmt: skip
def test_texts_that_are_encoded_once_prove_the_same(case):
    """Three answers from one pass of the text encoder are those of three passes, absent choices included."""
    model = case.build().eval()
    inputs = {name: value for name, value in case.inputs().items() if name != "labels"}
    with torch.inference_mode():
        output = model(**inputs, **asking_for_evidence(model))
        apart = scores_of_evidence(model, inputs, output)
        encoded = model.encode_texts(inputs)
        assert not any("input_ids" in name for name in encoded)
        model.text_encoder = None  # nothing is left to encode with
        again = model(**encoded, **asking_for_evidence(model))
        together = scores_of_evidence(model, encoded, again)
    torch.testing.assert_close(again.logits, output.logits, atol=1e-5, rtol=1e-4)
    for one, other in ((apart.only, together.only), (apart.without, together.without)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, equal_nan=True)


def test_a_clip_of_three_frames_gets_a_verdict():
    """A model that keeps two frames is asked about the one that is left, and the rest is masked."""
    case = next(case for case in CASES if case.keeps)
    model = case.build(num_frames_kept=2).eval()
    inputs = {name: value for name, value in case.inputs(frames=3).items() if name != "labels"}
    inputs["frame_mask"] = torch.ones(3, 3, dtype=torch.bool)
    with torch.inference_mode():
        output = model(**inputs)
        output.kept_frames = torch.tensor([[0, 1], [1, 2], [0, 2]])
        proof = scores_of_evidence(model, inputs, output)
        left = {name: value[:1, 2:] if name.startswith(("frame_", "object_")) else value[:1]
                for name, value in inputs.items()}  # fmt: skip
        alone = model(**left).logits.softmax(-1)
    torch.testing.assert_close(proof.without[:1], alone, atol=1e-5, rtol=1e-4)
    assert proof.without[:2].isfinite().all() and proof.only.isfinite().all()
    assert proof.without[2].isnan().all(), "the third question's event is the whole clip"
    words = [f"choice {place}" for place in range(proof.only.shape[1])]
    for row, necessary in ((0, True), (1, True), (2, False)):
        scores = [float(score) for score in output.logits[row].softmax(-1)]
        best = int(np.argmax(scores))
        verdict = judge(Evidence(words[best], best, scores[best], scores, words), words, proof, row)
        assert isinstance(verdict.sufficient, bool) and isinstance(verdict.necessary, bool) == necessary
