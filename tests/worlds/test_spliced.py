"""Spliced films: the window is where the film shows the clip, no clip is on both sides, and nothing can be guessed."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from hf_causal_video.cli.main import main
from hf_causal_video.data.rows import questions_dataset
from hf_causal_video.features.decode import decode_video
from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.worlds.spliced import splice
from hf_causal_video.worlds.spliced_options import SpliceOptions
from hf_causal_video.worlds.spliced_plan import PRESENCE, plan_films, split_clips
from hf_causal_video.worlds.spliced_sources import ClipQuestion, Source, read_sources

SMALL = {"width": 64, "height": 48, "stretch_s": 1.0, "fps": 4}


def grey(number):
    """The grey level of a clip, told apart after compression."""
    return 20 + 14 * number


def write_clip(path, level, seconds=2.0, rate=8, size=(64, 48), rotate=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(round(seconds * rate)):
            image = np.full((size[1], size[0], 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Fifteen clips of different size, rate and length, and one that is broken; the answer is the grey level."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(15):
        size = ((64, 48), (80, 120), (100, 40))[number % 3]
        write_clip(folder / f"clip{number:02d}.mp4", grey(number), 0.75 + number % 3, (8, 5, 2)[number % 3], size)
    (folder / "broken.mp4").write_bytes(b"no film")
    lines = ["video,question,answer"]
    lines += [f"clip{n:02d}{'.mp4' if n % 2 else ''},how grey is thing {n}?,level {grey(n)}" for n in range(15)]
    (folder / "questions.csv").write_text("\n".join([*lines, "broken,what?,nothing", "gone,what?,nothing"]))
    return folder


@pytest.fixture(scope="module")
def made(clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("set") / "spliced"
    report = splice(clips, clips / "questions.csv", output, SpliceOptions(**SMALL, rounds=2), progress=False)
    return output, report


def rows_of(output, split):
    return [json.loads(line) for line in (output / f"{split}.jsonl").read_text().splitlines()]


def test_the_window_shows_the_right_clip_from_its_first_to_its_last_frame_and_no_other_window_does(made):
    output, report = made
    for split in report["splits"]:
        for row in rows_of(output, split):
            film = decode_video(output / "videos" / f"{row['video']}.mp4", "fps-4")
            level = int(row["choices"][row["answer"]].split()[1])
            middle = np.array([frame[20:28, 28:36].mean() for frame in film.frames])
            (start, end), times = row["spans"][0], film.timestamps_s
            inside = (start < times) & (times < end)
            assert abs(film.duration_s - row["duration_s"]) < 1e-3 and inside.any()
            assert (np.abs(middle[inside] - level) < 6).all() and (np.abs(middle[~inside] - level) > 6).all()


def test_wrong_choices_are_answers_of_the_other_stretches(made):
    output, report = made
    shown = {f["film"]: {grey(int(s["clip"][4:])) for s in f["stretches"]} for f in report["films"]}
    for row in rows_of(output, "train"):
        assert {int(choice.split()[1]) for choice in row["choices"]} == shown[row["video"]] and len(
            row["choices"]
        ) == 4


def test_training_and_test_share_no_clip_and_every_clip_is_asked_about(made):
    _, report = made
    used = {split: set() for split in report["splits"]}
    for film in report["films"]:
        used[film["film"].partition("_")[0]] |= {stretch["clip"] for stretch in film["stretches"]}
    assert not used["train"] & used["test"] and not used["validation"] & used["test"]
    assert len(set().union(*used.values())) == 15
    assert "not a video" in report["left_out"]["broken"] and "no file" in report["left_out"]["gone"]


def test_the_same_seed_gives_the_same_bytes_and_another_other_films(clips, made, tmp_path):
    output, _ = made
    again = splice(clips, clips / "questions.csv", tmp_path / "a", SpliceOptions(**SMALL, rounds=2), progress=False)
    for file in sorted(output.rglob("*.mp4")) + sorted(output.glob("*.jsonl")):
        assert (tmp_path / "a" / file.relative_to(output)).read_bytes() == file.read_bytes(), file
    other = splice(clips, clips / "questions.csv", tmp_path / "b", SpliceOptions(**SMALL, seed=1), progress=False)
    assert other["films"] != again["films"]


def test_it_goes_on_after_an_interruption_and_refuses_another_set(clips, made):
    output, report = made
    film = output / "videos" / f"{report['films'][0]['film']}.mp4"
    before, kept = film.read_bytes(), output / "videos" / f"{report['films'][1]['film']}.mp4"
    film.unlink()
    stamp = kept.stat().st_mtime_ns
    splice(clips, clips / "questions.csv", output, SpliceOptions(**SMALL, rounds=2), progress=False)
    assert film.read_bytes() == before and kept.stat().st_mtime_ns == stamp
    with pytest.raises(CausalVideoError, match="another set"):
        splice(clips, clips / "questions.csv", output, SpliceOptions(**SMALL, seed=9), progress=False)


def test_the_questions_load_as_a_dataset_with_spans(made):
    output, report = made
    rows = questions_dataset(load_dataset(str(output), "questions", split="test"))
    assert len(rows) == report["splits"]["test"]["questions"] and all(rows["spans"]) and min(rows["answer"]) >= 0


def test_photographs_with_classes_of_their_names_and_order_questions(tmp_path):
    names = ["apple", "pear", "plum", "fig", "kiwi", "lime", "date", "nut"]
    for number, name in enumerate(names):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (40 + number, 30), (grey(number),) * 3).save(tmp_path / "in" / f"n0000000{number}_{name}.png")
    assert main(["splice", str(tmp_path / "in"), "file-names", "--per-film", "4", "--output", str(tmp_path / "set"),
                 "--size", "64", "48", "--stretch", "1", "--ask", "both", "--no-progress"]) == 0  # fmt: skip
    report = json.loads((tmp_path / "set" / "splice.json").read_text())
    stretches = {film["film"]: film["stretches"] for film in report["films"]}
    kinds = set()
    for row in rows_of(tmp_path / "set", "test"):
        shown = [stretch["clip"].partition("_")[2] for stretch in stretches[row["video"]]]
        place = int(row["spans"][0][0])  # one second per stretch
        assert row["choices"][row["answer"]] == shown[place]
        kinds.add(row["question_type"])
        if row["question_type"] == "after":
            assert row["question"] == f"what is shown right after the {shown[place - 1]}?"
            assert set(row["choices"]) == set(shown)
        if row["question_type"] == "before":
            assert row["question"] == f"what is shown right before the {shown[place + 1]}?"
        if row["question_type"] == "content":
            assert row["question"] == PRESENCE and len(set(row["choices"]) & set(shown)) == 1
    assert kinds == {"after", "before", "content"}


def source(number, questions, **options):
    return Source(f"c{number}", f"c{number}.mp4", [ClipQuestion(*one) for one in questions], duration_s=9.0, **options)


def test_a_question_that_two_stretches_share_is_not_asked():
    clips = [source(n, [("who runs?", f"boy {n}"), (f"what is {n}?", f"thing {n}")]) for n in range(4)]
    films = plan_films("test", {"test": clips}, SpliceOptions())
    assert {row["question"] for film in films for row in film.questions} == {f"what is {n}?" for n in range(4)}


def test_a_wrong_choice_answers_the_most_similar_question():
    clips = [source(n, [(f"how many {n}?", f"{n} of them"), (f"who is {n}?", f"boy {n}")]) for n in range(4)]
    for row in plan_films("test", {"test": clips}, SpliceOptions())[0].questions:
        is_who = row["question"].startswith("who")
        assert all(choice.startswith("boy") == is_who for choice in row["choices"])


def test_a_question_about_seconds_that_were_cut_away_is_not_asked():
    spans = [("first?", "a", (0.0, 1.0)), ("last?", "b", (8.0, 9.0))]
    clips = [source(0, spans), *(source(n, [(f"q {n}", f"a {n}")]) for n in range(1, 3))]
    films = plan_films("test", {"test": clips}, SpliceOptions(per_film=3, stretch_s=2.0))
    assert {row["question"] for row in films[0].questions} == {"first?", "q 1", "q 2"}


def test_answers_that_all_coincide_are_refused():
    clips = [source(n, [(f"is {n} there?", "yes")]) for n in range(8)]
    with pytest.raises(CausalVideoError, match="answers coincide"):
        plan_films("test", {"test": clips}, SpliceOptions())


@pytest.mark.parametrize(("count", "splits"), [(4, ["test"]), (11, ["test", "train", "validation"])])
def test_few_clips_give_fewer_splits_and_still_no_clip_on_both_sides(count, splits):
    pools = split_clips([source(n, [("q", "a")]) for n in range(count)], SpliceOptions())
    assert sorted(pools) == splits
    tested = {s.clip_id for s in pools["test"]}
    assert not tested & {s.clip_id for name in pools if name != "test" for s in pools[name]}


def test_bad_input_is_named(clips, tmp_path):
    with pytest.raises(CausalVideoError, match="found 1 with a question.*at least 4"):
        split_clips([source(0, [("q", "a")])], SpliceOptions())
    with pytest.raises(CausalVideoError, match="stretches per film: found 1"):
        SpliceOptions(per_film=1)
    with pytest.raises(CausalVideoError, match="no folder"):
        read_sources(tmp_path / "absent", "file-names")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("video,question,answer\nclip0,why,so\n")
    with pytest.raises(CausalVideoError, match="none about a clip.*did you mean 'clip"):
        read_sources(clips, wrong)
    for row in ('clip00,why,so,"[[3, 1]]"', "clip00,why,so,[[", "clip00,why,so,7"):
        wrong.write_text(f"video,question,answer,spans\n{row}\n")
        with pytest.raises(CausalVideoError, match="line 2.*invalid spans"):
            read_sources(clips, wrong)
    wrong.write_text("video,question,answer\nclip00,why,\n")
    with pytest.raises(CausalVideoError, match="line 2 of"):
        read_sources(clips, wrong)


def test_answers_as_index_and_tab_separated_rows_with_a_lone_quote(clips, tmp_path):
    table = tmp_path / "rows.tsv"
    table.write_text(
        'video\tquestion\ta0\ta1\tanswer\nclip00\twho says "hello\tthe boy\ta dog\t1\nclip01\twhy\ta\tb\t0\n'
    )
    sources, _ = read_sources(clips, table)
    assert [s.questions for s in sources] == [[ClipQuestion('who says "hello', "a dog")], [ClipQuestion("why", "a")]]
    lines = [{"video": "clip02.mp4", "question": "why", "choices": ["a", "b"], "answer": 1, "spans": [[1, 2]]}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, lines)))
    assert read_sources(clips, rows)[0][0].questions == [ClipQuestion("why", "b", (1.0, 2.0))]


def test_a_turned_clip_stands_upright(tmp_path, make_clip=None):
    """A photograph with an orientation tag, and films of any rotation, go through the decoder that turns them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture = Image.new("RGB", (60, 30), "black")
    picture.paste("white", (0, 0, 30, 30))  # left half white; upright: upper half
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        picture.save(tmp_path / "in" / f"{name}.jpg", exif=exif)
    options = SpliceOptions(per_film=2, width=32, height=64, stretch_s=1.0, fps=4, ask="order")
    splice(tmp_path / "in", "file-names", tmp_path / "set", options, progress=False)
    frame = decode_video(tmp_path / "set" / "videos" / "test_0000.mp4", "uniform-1").frames[0]
    assert frame[8:24].mean() > 200 and frame[40:56].mean() < 60


def test_answers_about_spliced_films_are_scored_with_their_seconds(made):
    """Own questions with annotated seconds get the metrics of NExT-GQA, without being called so."""
    from hf_causal_video.training.evaluate import score

    output, _ = made
    rows = questions_dataset(load_dataset(str(output), "questions", split="test"))
    right = [
        {"question_id": row["question_id"], "prediction": row["answer"], "best_span": row["spans"][0]} for row in rows
    ]
    assert score(right, rows, str(output))["Acc@GQA"] == 100.0
    whole = [{**one, "best_span": [0.0, row["duration_s"]]} for one, row in zip(right, rows, strict=True)]
    metrics = score(whole, rows, str(output))
    assert metrics["Acc"] == 100.0 and metrics["Acc@GQA"] == 0.0 and metrics["mIoP"] < 50
