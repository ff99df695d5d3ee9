"""The stress test on models whose outcome is known: an oracle, a blind one, one that reads the environment."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_causal_video.data import VideoQADataset
from hf_causal_video.stress.clips import random_window, shown, swapped
from hf_causal_video.stress.picture import draw_stress, save_stress
from hf_causal_video.stress.report import card_results, save_report, stress_table, summarize
from hf_causal_video.stress.runner import OF_EVIDENCE, TESTS, stress_test
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds import WorldConfig, generate_world
from hf_causal_video.worlds.config import ACTIONS, CLASSES, COLOURS
from hf_causal_video.worlds.features import world_vocabulary

CONFIG = WorldConfig.grounding(num_choices=5, sigma=0.2, context_scale=0.1)
VECTORS = world_vocabulary(CONFIG)
WORDS = {
    word: torch.from_numpy(VECTORS[kind][place])
    for kind, words in (("classes", CLASSES), ("colours", COLOURS), ("actions", ACTIONS))
    for place, word in enumerate(words)
}
PLACE = {word: place for words in (CLASSES, COLOURS, ACTIONS) for place, word in enumerate(words)}
ENVIRONMENTS = torch.from_numpy(VECTORS["environments"])


class Oracle:
    """Finds the frames that show what is asked about, and reads the answer off them."""

    def find(self, frames, question: str) -> torch.Tensor:
        asked = next(WORDS[word] for word in question.split() if word in WORDS)
        return (frames["frame_features"].float() @ asked > 0.6).nonzero()[:, 0]

    def __call__(self, frames, question, choices):
        here = frames["frame_features"].float()[self.find(frames, question)]
        look = here.mean(0) if len(here) else torch.zeros(64)
        return torch.stack([WORDS[choice] @ look for choice in choices])

    def evidence(self, asked):
        return [self.find(frames, question) for frames, question, _ in asked]


class Blind:
    """Never looks: a score for each pair of question and choice."""

    def __call__(self, frames, question, choices):
        return [zlib.crc32(f"{question} {choice}".encode()) % 997 for choice in choices]

    def evidence(self, asked):
        return [[0, 1, 2] for _ in asked]


class Shortcut:
    """Reads the environment alone, and names the choice that goes with it in training."""

    def __call__(self, frames, question, choices):
        likes = (frames["frame_features"].float() @ ENVIRONMENTS.T).mean(0)
        return [likes[PLACE[choice]] for choice in choices]


def world(split: str = "iid", clips: int = 150) -> VideoQADataset:
    made = generate_world(CONFIG, split, clips, seed=3)
    return VideoQADataset(made.questions, made.features)


@pytest.fixture(scope="module")
def iid() -> VideoQADataset:
    return world()


def run(answer, items, **options) -> dict:
    report = stress_test(answer, items, progress=False, resamples=300, **options)
    return report | {"at": {row["test"]: row for row in report["rows"]}}


def test_an_oracle_stands_and_falls_with_its_evidence(iid) -> None:
    found = run(Oracle(), iid)
    level = {test: row["accuracy"] for test, row in found["at"].items()}
    assert 15 < found["evidence_share"] < 30  # windows of 3 to 5 of 16 frames, two at times
    assert list(level) == list(TESTS) and not found["not_applicable"] and found["chance"] == 20
    assert min(level[test] for test in ("whole", "shuffled", "evidence_only", "options_permuted")) >= 98
    assert level["environment_swapped"] >= 85, "a donor's actor may do what is asked about"
    assert max(level[test] for test in ("blind", "evidence_removed", "question_replaced")) <= 35
    assert found["effects"]["evidence_effect"]["value"] > 60
    assert found["effects"]["evidence_over_control"]["interval"][0] > 40
    assert found["at"]["options_permuted"]["same_answer"] >= 99


def test_of_a_blind_model_nothing_changes_with_the_video(iid) -> None:
    found = run(Blind(), iid)
    for test in set(TESTS) - {"question_replaced"}:
        assert found["at"][test]["change"] == 0 and found["at"][test]["same_answer"] == 100
        assert found["at"][test]["change_interval"] == [0, 0]
    assert found["at"]["question_replaced"]["same_answer"] < 50
    assert all(effect["value"] == 0 == effect["interval"][1] for effect in found["effects"].values())


def test_a_shortcut_is_unmasked_by_the_environment_and_by_the_true_evidence(iid) -> None:
    found = run(Shortcut(), iid, evidence="truth")
    level = {test: row["accuracy"] for test, row in found["at"].items()}
    assert level["whole"] > 60, "it looks like a fair model"
    assert level["environment_swapped"] < level["whole"] - 30
    assert level["evidence_only"] < 40 and level["evidence_removed"] >= level["whole"] - 5
    assert found["effects"]["evidence_effect"]["interval"][1] < 0 < found["effects"]["visual_gain"]["interval"][0]
    assert run(Shortcut(), world("ood"), tests=["blind"])["at"]["whole"]["accuracy"] < 15  # below a guess


def test_without_evidence_the_report_says_which_tests_are_missing(iid) -> None:
    found = run(Shortcut(), iid)
    assert set(found["not_applicable"]) == set(OF_EVIDENCE) and "not made: evidence only" in stress_table(found)
    with pytest.raises(CausalVideoError, match="evidence='truth'"):
        run(Shortcut(), iid, evidence="own")
    with pytest.raises(CausalVideoError, match="evidence_only: no evidence"):
        run(Shortcut(), iid, tests=["evidence_only"])


def test_a_position_is_no_answer(iid) -> None:
    found = run(lambda frames, question, choices: range(len(choices), 0, -1), iid, tests=["options_permuted"])
    assert found["at"]["options_permuted"]["same_answer"] < 45


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(iid, tmp_path: Path) -> None:
    path, whole = tmp_path / "a" / "questions.jsonl", run(Oracle(), iid)

    class Dies(Oracle):
        left = 300

        def __call__(self, *asked):
            Dies.left -= 1
            if not Dies.left:
                raise KeyboardInterrupt
            return super().__call__(*asked)

    with pytest.raises(KeyboardInterrupt):
        run(Dies(), iid, path=path, batch_size=8)
    done = len(path.read_text().splitlines()) - 1
    assert 0 < done < len(iid)
    path.write_text(path.read_text() + '{"question_id": "half')
    again = Oracle()
    asked = []
    again.evidence = lambda batch: asked.extend(batch) or Oracle().evidence(batch)  # type: ignore[method-assign]
    assert run(again, iid, path=path)["rows"] == whole["rows"]
    assert len(asked) == len(iid) - done
    assert len(path.read_text().splitlines()) == len(iid) + 1
    with pytest.raises(CausalVideoError, match="another run"):
        run(Oracle(), iid, path=path, seed=1)


def test_neither_the_size_nor_the_order_of_batches_changes_a_draw(iid) -> None:
    backwards = [iid[row] for row in reversed(range(len(iid)))]
    once, again = run(Oracle(), iid, batch_size=7), run(Oracle(), backwards)
    kinds = set(TESTS) - {"environment_swapped", "question_replaced"}  # donors are drawn by their place in the table
    assert all(once["at"][test]["accuracy"] == again["at"][test]["accuracy"] for test in kinds)


def test_intervals_hold_the_truth_and_narrow_with_more_videos() -> None:
    def report(videos: int, each: int) -> dict:
        rng = np.random.default_rng(0)
        rows = [
            {
                "video_id": f"v{v}",
                "answer": 0,
                "choices": 2,
                "notes": [],
                "frames": 4,
                "evidence": None,
                "predictions": {"whole": int(r > 0.7)},
            }
            for v, r in ((v, r) for v in range(videos) for r in [rng.random()] * each)
        ]
        return summarize(rows, {"tests": ["whole"], "seed": 0}, {}, TESTS)["rows"][0]

    few, many, copies = report(40, 1), report(4000, 1), report(40, 20)
    assert many["interval"][0] < 70 < many["interval"][1]
    assert few["interval"][1] - few["interval"][0] > 5 * (many["interval"][1] - many["interval"][0])
    assert copies["interval"] == few["interval"], "more questions about the same videos are no more evidence"


def test_report_picture_and_card_carry_the_figures(iid, tmp_path: Path) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    found = run(Oracle(), iid)
    text = stress_table(found)
    assert "evidence effect: +" in text and "| all but the evidence" in text
    assert json.loads(save_report(found, tmp_path / "a.json").read_text())["effects"] == found["effects"]
    assert Image.open(save_stress(found, tmp_path / "a.png")).size[0] == 1200
    assert draw_stress(run(Shortcut(), iid), width=900).height < draw_stress(found).height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]
    index = [{"name": "m", "results": card_results(found, "world", "iid")}]
    [read] = [one for one in model_index_to_eval_results(index)[1] if one.metric_type == "evidence_effect"]
    assert read.metric_value == found["effects"]["evidence_effect"]["value"]


def test_clips_of_one_frame_and_evidence_of_none_or_all(iid) -> None:
    rows = [
        {"question_id": f"v{i}_0", "video_id": f"v{i}", "question": f"is {i} there", "choices": ["no", "yes"],
         "answer": i % 2, "frames": np.full((1 + i % 3, 2, 2, 3), 9 * (i % 2), np.uint8)} for i in range(12)
    ]  # fmt: skip

    def sees(frames, question, choices):
        return [4.5, float(np.max(frames))]

    short = run(sees, rows, evidence=lambda asked: [[]] * len(asked))
    assert short["at"]["evidence_only"]["accuracy"] == 50 and short["at"]["evidence_removed"]["accuracy"] == 100
    assert short["notes"]["evidence_only: no frames left, blank"] == 12
    full = run(sees, rows, evidence=lambda asked: [[0]] * len(asked))
    assert full["notes"]["evidence_removed: no frames left, blank"] == 4


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "mapping"])
def test_every_kind_of_clip_is_cut_and_mixed_alike(kind: str) -> None:
    make = {
        "array": lambda x: x, "tensor": torch.from_numpy, "list": list, "mapping": lambda x: {"frame_features": x},
    }[kind]  # fmt: skip
    read = (lambda x: np.asarray(x["frame_features"])) if kind == "mapping" else np.asarray
    clip, donor = np.arange(1, 7)[:, None], np.arange(11, 15)[:, None]
    assert read(shown(make(clip), [1, 4], 2)).ravel().tolist() == [2, 5]
    assert read(shown(make(clip), [1, 4], 3)).ravel().tolist() == [2, 2, 5]
    assert read(shown(make(clip), [], 3)).ravel().tolist() == [0] * 6
    mixed = swapped(make(clip), np.array([0, 2, 5]), make(donor), np.array([3]))
    assert read(mixed).ravel().tolist() == [14, 2, 14, 4, 5, 14] and clip[0] == 1


def test_a_window_lies_anywhere_and_has_its_size() -> None:
    draw = np.random.default_rng(0)
    starts = [random_window(draw, 10, 4)[0] for _ in range(300)]
    assert (min(starts), max(starts)) == (0, 6) and random_window(draw, 5, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "evidence", "message"),
    [
        (lambda f, q, c: [float("nan")] * len(c), None, "finite scores"),
        (lambda f, q, c: [1.0], None, "5 finite scores"),
        (lambda f, q, c: torch.tensor([1.0, torch.inf, 0, 0, 0], dtype=torch.bfloat16), None, "finite scores"),
        (Blind(), lambda asked: [[99]] * len(asked), "invalid evidence"),
        (Blind(), lambda asked: [[0.5]] * len(asked), "invalid evidence"),
        (Blind(), lambda asked: [[True]] * len(asked), "invalid evidence"),
    ],
)
def test_what_a_callable_must_not_return(iid, answer, evidence, message) -> None:
    with pytest.raises(CausalVideoError, match=message):
        run(answer, iid, evidence=evidence)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_any_precision_are_read(iid, dtype) -> None:
    half = run(lambda *asked: Oracle()(*asked).to(dtype), iid, tests=["blind"])
    assert half["at"]["whole"]["accuracy"] >= 98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": -1}, "1 without an answer"),
        ({"question_id": "v1_0"}, "some ids twice"),
        ({"frames": np.zeros((0, 2))}, "no clip"),
        ({"timestamps_s": None}, "no times"),
        ({"timestamps_s": [1.0, 1.0]}, "increasing"),
        ({"spans": [[90.0, 95.0]]}, "outside the frames"),
    ],
)
def test_questions_that_cannot_be_tested_are_refused(change: dict, message: str) -> None:
    rows = [
        {"question_id": f"v{i}_0", "video_id": f"v{i}", "question": f"q{i}", "choices": ["a", "b"], "answer": 0,
         "frames": np.zeros((2, 2)), "timestamps_s": [1.0, 2.0], "spans": [[1.0, 1.5]]} for i in range(3)
    ]  # fmt: skip
    assert run(Blind(), rows, evidence="truth")["questions"] == 3
    with pytest.raises(CausalVideoError, match=message):
        run(Blind(), [rows[0] | change, *rows[1:]], evidence="truth")
    with pytest.raises(CausalVideoError, match="0 questions"):
        run(Blind(), [])


def test_questions_come_from_a_list_a_table_or_any_dataset(iid) -> None:
    class Wrapped(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return {name: value for name, value in iid[index].items() if name != "spans"}

    few = Wrapped()
    rows = [few[index] for index in range(20)]
    table = Dataset.from_list([{**row, "frames": row["frame_features"].tolist()} for row in rows])
    kinds = ["whole", "blind", "shuffled"]
    found = [run(Oracle(), items, tests=kinds)["rows"] for items in (few, rows)]
    assert found[0] == found[1]
    by_table = run(lambda f, q, c: Oracle()({"frame_features": torch.tensor(np.array(f))}, q, c), table, tests=kinds)
    assert [row["accuracy"] for row in by_table["rows"]] == [row["accuracy"] for row in found[0]]


def test_open_answers_are_tested_too() -> None:
    rows = [
        {"question_id": f"v{i}_0", "video_id": f"v{i}", "question": f"q{i}", "choices": [], "answer": i % 3,
         "frames": np.eye(3)[[i % 3] * 4]} for i in range(6)
    ]  # fmt: skip
    found = run(lambda frames, question, choices: frames.mean(0), rows)
    assert found["at"]["whole"]["accuracy"] == 100 and found["chance"] is None
    assert "options_permuted" in found["not_applicable"]
    draw_stress(found)
    rows[0] |= {"answer": -1, "answer_text": "no word of the vocabulary"}
    assert run(lambda frames, question, choices: frames.mean(0), rows)["at"]["whole"]["accuracy"] == pytest.approx(
        83.33
    )


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": "8"},
        {"batch_size": True},
        {"resamples": 0},
        {"least_frames": -1},
        {"seed": -1},
    ],
)
def test_counts_that_are_none_are_refused_by_the_name_of_their_option(iid, options) -> None:
    [name] = options
    with pytest.raises(CausalVideoError, match=f"--{name.replace('_', '-')}"):
        stress_test(Blind(), iid, progress=False, **options)
