"""Annotation files with anything in them: what is read is what a plain parser finds there, or the file is refused."""

import csv
import gzip
import io
import json
import math
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_causal_video.data import (
    BENCHMARKS,
    benchmark_vocabulary,
    build_answer_vocabulary,
    index_answers,
    load_benchmark,
    questions_dataset,
)
from hf_causal_video.data.causalvidqa import KEYS
from hf_causal_video.data.relations.jaad import CAR_STATES, JAAD_LABELS, read_jaad
from hf_causal_video.data.relations.rows import ground_truth, relations_dataset, training_counts, unbroken_tracks
from hf_causal_video.data.relations.vidvrd import read_relations, read_trajectories
from hf_causal_video.training.relations.splits import read_rows
from tests.fuzzing import JUNK, damaged, mutated, refused

CHOICES = ["to rest", "to eat", "to look", "to hide", "none"]
COLUMNS = ["video", "question", "answer", "qid", "type", *(f"a{n}" for n in range(5))]
TEXTUAL = ("nextgqa", "causalvidqa")  # answers stand there as texts
SPANS = {"v0": {"duration": 9, "location": {str(n): [[1.0, 2.5], [3, 4]] for n in range(6)}}}
WORDS = ["to rest", "2", "to eat", "3"]


def lines_of(name: str) -> list[list[str]]:
    kinds = list(KEYS) if name == "causalvidqa" else ["CW", "CH", "TN", "TC", "DC", "DO"]
    rows = []
    for number, kind in enumerate(kinds):
        answer = CHOICES[number % 5] if name in TEXTUAL or BENCHMARKS[name].open_ended else str(number % 5)
        rows.append(["v0", "why did he stop", answer, str(number), kind, *CHOICES])
    return [COLUMNS, *rows]


def table_of(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode("utf-8", "surrogatepass")


def plainly(data: bytes) -> list[dict[str, str]]:
    """The rows that the standard library finds in a table."""
    text = data.decode("utf-8-sig")
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def agree(table, data: bytes, name: str) -> None:
    """What was read stands in the file, and every answer is one."""
    rows = [{(key or "").strip(): value for key, value in row.items()} for row in plainly(data)]
    said = {row.get("answer") for row in rows}
    by_index = name not in TEXTUAL or name == "causalvidqa" and said <= {"0", "1", "2", "3", "4", "-1"}
    assert len(rows) == len(table) == len(set(table["question_id"])) > 0
    for row, read in zip(rows, table, strict=True):
        assert read["question"] == row["question"] and read["question"].strip() and read["video_id"].strip()
        said = row["answer"]
        if BENCHMARKS[name].open_ended:
            assert read["answer_text"] == said and read["choices"] == []
            assert read["answer"] == (WORDS.index(said) if said in WORDS else -1)
            continue
        choices = [row[f"a{n}"] for n in range(5)]
        assert read["choices"] == choices and all(choice.strip() for choice in choices)
        assert read["answer"] == (int(said) if by_index else choices.index(said))
        assert all(math.isfinite(s) and math.isfinite(e) and s <= e for s, e in read["spans"])


cells = st.sampled_from(["", " ", "2", "-1", "5", "2.0", "to eat", "v1", "é", "a\nb", 'a"b', "nan", "None", "\t", "٣"])


@st.composite
def tables(draw, name: str) -> bytes:
    """A benchmark's csv with cells, columns, lines or bytes that do not belong."""
    lines = [list(line) for line in lines_of(name)]
    for _ in range(draw(st.integers(0, 3))):
        what = draw(st.sampled_from(["cell", "cell", "column", "line", "twice", "name"]))
        line, column = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, 9))
        if what == "cell" and column < len(lines[line]):
            lines[line][column] = draw(cells)
        elif what == "column":
            lines = [[cell for place, cell in enumerate(row) if place != column] for row in lines]
        elif what == "line" and len(lines) > 1:
            del lines[line]
        elif what == "twice":
            lines.append(list(lines[line]))
        elif column < len(lines[0]):
            lines[0][column] = draw(st.sampled_from(["video_id", "id", "a5", "answer", "x", ""]))
    data = table_of(lines)
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "latin-1", "utf-16"]))
    if encoding != "utf-8":
        data = data.decode("utf-8", "surrogatepass").encode(encoding, "replace")
    return draw(damaged(data)) if draw(st.integers(0, 2)) == 0 else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


@pytest.mark.parametrize("name", ["nextqa", "nextqa-oe", "nextgqa", "msvdqa", "causalvidqa", "tgifqa-action"])
@given(st.data())
def test_any_table_is_read_as_it_stands_or_refused_by_name(folder, name, data):
    table = data.draw(tables(name))
    split = "test" if name.startswith("tgif") else "val"
    place = folder / name
    place.mkdir(exist_ok=True)
    zipped = data.draw(st.booleans())
    for old in place.iterdir():
        old.unlink()
    (place / f"{split}.csv{'.gz' * zipped}").write_bytes(gzip.compress(table, 1) if zipped else table)
    (place / "gsub_val.json").write_text(json.dumps(SPANS))
    words = WORDS if BENCHMARKS[name].open_ended else None
    no, read = refused(load_benchmark, name, split, place, words, full=False)
    if no:
        assert str(place) in str(read)
    else:
        agree(read, table, name)


def put(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def jsons(tree):
    """A JSON document that differs from the tree in a few places, or in a few bytes."""
    return st.one_of(mutated(tree), mutated(tree), JUNK, damaged(json.dumps(tree).encode()))


@given(jsons(SPANS))
def test_any_spans_are_read_as_they_stand_or_refused(folder, spans):
    put(folder / "gqa/val.csv", table_of(lines_of("nextgqa")))
    put(folder / "gqa/gsub_val.json", spans)
    no, read = refused(load_benchmark, "nextgqa", "val", folder / "gqa", full=False)
    if no:
        return
    spans = json.loads(spans) if isinstance(spans, bytes) else json.loads(json.dumps(spans))
    for row in read:
        qid = row["question_id"].rsplit("_", 1)[1]
        assert row["spans"] == [[float(s), float(e)] for s, e in spans["v0"]["location"][qid]]
        assert row["duration_s"] == float(spans["v0"]["duration"]) and 0 <= row["duration_s"] < math.inf


@given(jsons(WORDS), jsons({"v0": {"0": "to sleep", "3": "to run"}}))
def test_any_vocabulary_and_reference_answers_are_used_as_they_stand_or_refused(folder, words, references):
    put(folder / "oe/test.csv", table_of(lines_of("nextqa-oe")))
    put(folder / "oe/add_reference_answer_test.json", references)
    put(folder / "oe/words.json", words)
    no, found = refused(benchmark_vocabulary, "nextqa-oe", folder / "oe", folder / "oe/words.json")
    if not no:
        assert (
            found and len(set(found)) == len(found) and all(isinstance(word, str) and word.strip() for word in found)
        )
    words = WORDS if no else found
    no, read = refused(load_benchmark, "nextqa-oe", "test", folder / "oe", words, full=False)
    if not no:
        given_ones = json.loads(references) if isinstance(references, bytes) else references
        for row in read:
            assert row["answer"] == (words.index(row["answer_text"]) if row["answer_text"] in words else -1)
            more = given_ones.get("v0", {}).get(row["question_id"][3:])
            assert set(row["reference_answers"]) == {row["answer_text"], *([more] if more else [])}


ASKED = {"question": "why", "answer": CHOICES, "reason": CHOICES[::-1]}
TEXT = {key: ASKED for key in ("descriptive", "explanatory", "predictive", "counterfactual")}
TOLD = {key: {"answer": 1, "reason": 4} for key in TEXT}


@given(jsons(TEXT), jsons(TOLD))
def test_any_clip_of_causal_vidqa_is_read_as_it_stands_or_refused(folder, text, told):
    put(folder / "causal/QA/v0/text.json", text)
    put(folder / "causal/QA/v0/answer.json", told)
    no, read = refused(load_benchmark, "causalvidqa", "val", folder / "causal", full=False)
    if no:
        return
    text, told = (json.loads(one) if isinstance(one, bytes) else one for one in (text, told))
    for row in read:
        key, part = KEYS[row["question_type"]]
        assert row["choices"] == text[key][part] and row["answer"] == told[key][part] and row["question"].strip()


ROW = {"question_id": "v_0", "video_id": "v", "question": "who", "choices": ["a", "b"], "answer": 1,
       "answer_text": "b", "question_type": "W", "spans": [[0.5, 2]], "duration_s": 9.0}  # fmt: skip


@given(mutated([ROW, ROW | {"question_id": "v_1", "choices": [], "answer": 7, "answer_text": "x"}]))
def test_any_question_rows_make_a_checked_table_or_are_refused(rows):
    no, table = refused(questions_dataset, rows)
    if no:
        return
    assert len(table) == len(rows) == len(set(table["question_id"]))
    for row, read in zip(rows, table, strict=True):
        assert (read["question_id"], read["video_id"]) == (row["question_id"], row["video_id"])
        assert read["choices"] == list(row.get("choices", [])) and read["answer"] == row.get("answer", -1)
        assert not read["choices"] or read["answer"] < len(read["choices"])
        assert all(math.isfinite(s) and s <= e < math.inf for s, e in read["spans"]) and read["duration_s"] >= 0


@given(st.lists(JUNK, max_size=4), st.integers(-1, 3) | JUNK)
def test_any_answers_make_a_vocabulary_without_twins_or_are_refused(answers, size):
    no, words = refused(build_answer_vocabulary, answers, size)
    if not no:
        assert len(set(words)) == len(words) > 0 and set(index_answers(words, words, False)) == set(range(len(words)))


ANNOTATION = {
    "video_id": "v", "frame_count": 3, "width": 20, "height": 10, "fps": 30.0,
    "subject/objects": [{"tid": 0, "category": "dog"}, {"tid": 7, "category": "cat"}],
    "trajectories": [
        [{"tid": tid, "bbox": {"xmin": tid, "ymin": 1, "xmax": 9, "ymax": 8}} for tid in (0, 7)] for _ in range(3)
    ],
    "relation_instances": [
        {"subject_tid": 0, "predicate": "chase", "object_tid": 7, "begin_fid": 0, "end_fid": 2}
    ],
}  # fmt: skip


def sound(table) -> None:
    """Everything that is made of relation rows can be made of these."""
    truth, (counts, triplets) = ground_truth(table), training_counts(table)
    assert sum(counts.values()) == sum(map(len, truth.values())) and len(triplets) <= max(1, sum(counts.values()))
    for row in table:
        parts = unbroken_tracks(row)
        assert sum(len(part["boxes"]) for part in parts) == sum(len(track["frames"]) for track in row["tracks"])
        for relation in truth[row["video_id"]]:
            assert len(relation["sub_traj"]) == len(relation["obj_traj"]) == -int.__sub__(*relation["duration"]) > 0
        for track in row["tracks"]:
            assert all(math.isfinite(n) for box in track["boxes"] for n in box)
            assert all(left <= right and top <= low for left, top, right, low in track["boxes"])


@given(jsons(ANNOTATION))
def test_any_relation_annotation_is_read_as_it_stands_or_refused(folder, content):
    put(folder / "vidvrd.json", content)
    no, read = refused(read_relations, folder / "vidvrd.json")
    if no:
        return
    content = json.loads(content) if isinstance(content, bytes) else content
    sound(read)
    [row] = read
    boxes = sum(map(len, content["trajectories"]))
    assert sum(len(track["frames"]) for track in row["tracks"]) == boxes
    assert [one["predicate"] for one in row["relations"]] == [
        one["predicate"] for one in content["relation_instances"]
    ]
    assert (row["width"], row["height"]) == (content["width"], content["height"])


TRACKED = {"results": {"v": [
    {"category": "dog", "score": 0.5, "trajectory": {"0": [0, 0, 5, 5], "2": [1, 1, 6, 6]}},
    {"category": "cat", "score": 1, "trajectory": {"1": [0, 0, 5, 5]}},
]}}  # fmt: skip


@given(jsons(TRACKED), st.sampled_from(["error", "ignore"]), st.booleans())
def test_any_trajectories_are_read_as_they_stand_or_refused(folder, content, others, zipped):
    path = folder / f"tracks.json{'.gz' * zipped}"
    put(path, content)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    no, read = refused(read_trajectories, path, {"v": (20, 10, 4)}, others)
    if not no:
        sound(read)
        assert all(math.isfinite(track["score"]) for row in read for track in row["tracks"])


TRACK = {"category": "dog", "score": 1.0, "frames": [0, 1, 3], "boxes": [[0, 0, 5, 5]] * 3}
RELATIONS = {
    "video_id": "v", "width": 20, "height": 10, "fps": 30.0, "num_frames": 4, "tracks": [TRACK, TRACK],
    "relations": [{"subject": 0, "predicate": "chase", "object": 1, "start": 0, "end": 2}],
}  # fmt: skip


@given(mutated([RELATIONS, RELATIONS | {"video_id": "w"}]))
def test_any_relation_rows_make_a_checked_table_or_are_refused(rows):
    no, table = refused(relations_dataset, rows)
    if not no:
        sound(table)
        assert [row["video_id"] for row in table] == [row["video_id"] for row in rows]


def test_bytes_of_a_parquet_file_of_relations_are_read_or_refused(folder):
    """Cut anywhere, and under a wrong name; damage inside is what feature shards are sealed against."""
    relations_dataset([RELATIONS]).to_parquet(str(folder / "rows.parquet"))
    whole = (folder / "rows.parquet").read_bytes()
    for keep in range(0, len(whole), max(1, len(whole) // 50)):
        (folder / "cut.parquet").write_bytes(whole[:keep])
        assert refused(read_rows, str(folder / "cut.parquet"))[0]
    assert read_rows(str(folder / "rows.parquet")).to_list() == relations_dataset([RELATIONS]).to_list()


BOX = '<box frame="{0}" outside="0" xtl="1" ytl="2" xbr="{1}" ybr="9">{2}</box>'
TOLD_OF = "".join(
    f'<attribute name="{name}">{value}</attribute>'
    for name, value in {"action": "walking", "look": "looking", "cross": "crossing", "nod": "__undefined__"}.items()
)
PEOPLE = (
    "<annotations><meta><original_size><width>20</width><height>10</height></original_size></meta>"
    f'<track label="pedestrian">{"".join(BOX.format(n, 5 + n, TOLD_OF) for n in range(3))}</track></annotations>'
).encode()
DRIVEN = "".join(f'<frame id="{n}" action="{CAR_STATES[n]}"/>' for n in range(3))
CAR = f"<vehicle>{DRIVEN}</vehicle>".encode()


FILES = {
    "annotations/video_1.xml": PEOPLE,
    "annotations_vehicle/video_1_vehicle.xml": CAR,
    "split_ids/all_videos/val.txt": b"video_1\n",
}


def packed(files: dict[str, bytes]) -> bytes:
    """The same bytes every time."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"JAAD/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(content.getvalue(), 1, mtime=0)


PACKED = packed(FILES)


@given(st.data())
def test_any_jaad_annotation_gives_windows_or_is_refused(folder, data):
    place = folder / "jaad"
    hurt = data.draw(st.sampled_from(list(FILES)))
    words = st.sampled_from([b'"0"', b'"1"', b'"nan"', b'"x"', b'"-3"', b'"1e999"', b"walking", b"", b"track", b"20"])
    changed = FILES[hurt].replace(data.draw(words), data.draw(words), data.draw(st.integers(1, 3)) if hurt else 1)
    for name, content in FILES.items():
        chosen = changed if name == hurt and changed else data.draw(damaged(content, 2)) if name == hurt else content
        put(place / name, chosen)
    if data.draw(st.booleans()):
        place = folder / "jaad.tar.gz"
        place.write_bytes(data.draw(damaged(PACKED, 1)))
    window, stride = data.draw(st.sampled_from([2, 3, 1, 0])), data.draw(st.sampled_from([None, 1, 0]))
    no, read = refused(read_jaad, place, "val", window, stride)
    if not no:
        assert read.boxes.shape[1:] == (window, 4) and read.boxes.isfinite().all()
        assert (read.boxes[..., :2] <= read.boxes[..., 2:]).all()
        assert read.labels.shape == (len(read), len(JAAD_LABELS)) and set(read.labels.unique().tolist()) <= {0.0, 1.0}
        assert len(read.batch(read.start_frames.long() * 0)["track_boxes"]) == len(read)
