"""Laws of the relation viewer: trajectories become objects, every relation is drawn where and when it holds."""

import html
import json
import re

import numpy as np
import pytest

from hf_causal_video.utils.errors import CausalVideoError
from hf_causal_video.viewer.relations import RelationCase
from hf_causal_video.viewer.relations_page import relations_html, write_relations
from hf_causal_video.viewer.relations_picture import draw_relations, save_relations, summary
from tests.viewer.test_browser import browse

SIZE = (200, 100)


def relation(triplet: str, start: int, end: int, x: float = 20, score: float | None = 0.9) -> dict:
    """The subject moves right by a pixel a frame from 0, the object stands at x."""
    found = {
        "triplet": triplet.split(),
        "duration": [start, end],
        "sub_traj": [[f, 10, f + 20, 60] for f in range(start, end)],
        "obj_traj": [[x + 80, 20, x + 120, 90]] * (end - start),
    }
    return found if score is None else found | {"score": score}


def case(**changes) -> RelationCase:
    rows = [
        relation("dog chase cat", 0, 20),
        relation("dog near cat", 10, 40, score=0.8),
        relation("dog near bird", 30, 40, x=60, score=0.5),
        relation("dog chase cat", 25, 30, score=0.4),
    ]
    frames = [np.full((100, 200, 3), 6 * index, np.uint8) for index in range(8)]
    given = {
        "relations": rows,
        "frames": frames,
        "frame_indices": range(0, 40, 5),
        "frame_size": SIZE,
        "times_s": [0.05 + 0.1 * f for f in range(40)],
        "title": "clip <1>.mp4",
    }
    return RelationCase(**(given | changes))


def test_trajectories_that_lie_on_each_other_are_one_object():
    drawn = case()
    assert [(one.number, one.label) for one in drawn.objects] == [(1, "dog"), (2, "cat"), (3, "bird")]
    assert sorted(drawn.objects[0].boxes) == list(range(40)), "its box is known wherever a relation knows it"
    assert [(r.subject.number, r.predicate, r.object.number, r.spans) for r in drawn.shown] == [
        (1, "chase", 2, [(0, 20), (25, 30)]),
        (1, "near", 2, [(10, 40)]),
        (1, "near", 3, [(30, 40)]),
    ]


def test_a_pair_of_duplicates_is_two_objects_never_one_with_itself():
    same = relation("dog near dog", 0, 5) | {"obj_traj": [[f, 10, f + 20, 60] for f in range(5)]}
    assert len(case(relations=[same]).objects) == 2


def test_what_holds_at_a_moment_is_what_the_durations_say():
    drawn = case()
    assert [r.predicate for r in drawn.active(10)] == ["chase", "near"]
    assert [r.predicate for r in drawn.active(20)] == ["near"] and drawn.active(39)[1].object.label == "bird"
    assert drawn.label_of(10) == "1.1 s" and drawn.end == 40
    moments = drawn.best_moments(4)
    assert moments == sorted(set(moments)) and len(moments) == 4
    assert all(any(r.holds(m) for m in moments) for r in drawn.shown)


def test_only_the_best_relations_are_drawn():
    drawn = case(most=1)
    assert [(r.predicate, r.spans) for r in drawn.shown] == [("chase", [(0, 20)])]
    assert (
        summary(drawn) == "The best 1 relation between 2 objects"
        and summary(case()) == "3 relations between 3 objects"
    )


def test_the_picture_shows_each_object_in_its_colour_and_grows_with_the_relations(tmp_path):
    picture = np.asarray(draw_relations(case()))
    for one in case().objects:
        colour = [int(one.colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - colour).max(-1) < 8).sum() > 300
    assert draw_relations(case(most=1)).height < picture.shape[0]
    assert (
        save_relations(case(), tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
        and len(list(tmp_path.iterdir())) == 1
    )
    with pytest.raises(CausalVideoError, match="1000"):
        draw_relations(case(), width=300)


@pytest.mark.parametrize(
    "changes",
    [
        {"relations": []},
        {"relations": [], "frames": [], "frame_indices": []},
        {"frames": [], "frame_indices": []},
        {"times_s": None},
        {"relations": [relation("dog chase cat", 3, 4, score=None)]},
    ],
)
def test_no_relation_no_picture_no_time_and_no_score_are_drawn_all_the_same(changes):
    drawn = case(**changes)
    assert draw_relations(drawn).width == 1600
    page = relations_html(drawn)
    assert ("No relation was found" in page) == (not drawn.shown)


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path):
    page = write_relations(tmp_path / "a.html", case()).read_text(encoding="utf-8")
    assert "clip &lt;1&gt;.mp4" in page and "<1>" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "default-src 'none'" in page
    data = json.loads(re.search(r'class="data">(.*?)</script>', page, re.S)[1])
    assert len(data["moments"]) == 8 and data["pairs"] == [[1, 2], [1, 2], [1, 3]]
    assert data["moments"][2]["active"] == [0, 1] and data["moments"][2]["boxes"][0][2:] == [5, 10, 10, 50]
    assert page.count('<div class="relation">') == 3 and page.count("<i ") == 4


@pytest.mark.parametrize(
    ("size", "style"), [((96, 96), "width: 480px"), ((90, 160), "width: 270px"), ((640, 360), "")]
)
def test_a_small_film_is_enlarged_and_keeps_its_shape(size, style):
    frames = [np.zeros((size[1], size[0], 3), np.uint8)] * 8
    image = re.search(r"<img [^>]*alt[^>]*>", relations_html(case(frames=frames, frame_size=size)))[0]
    assert (style in image) if style else "style" not in image


def test_names_cannot_break_out_of_the_page():
    evil = relation("dog chase cat", 0, 5) | {"triplet": ["</script><b>x", "<i>y</i>", "z"]}
    page = relations_html(case(relations=[evil]))
    assert "<b>x" not in page and "<i>y" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_indices": [0, 5]}, "one a picture"),
        ({"frames": [np.zeros((4, 4))], "frame_indices": [0]}, "uint8"),
        ({"frame_size": None}, "frame_size"),
        ({"times_s": [0.0] * 5}, "times"),
        ({"relations": [relation("dog chase", 0, 5)]}, "three words"),
        ({"relations": [relation("dog chase cat", 0, 5) | {"duration": [0, 6]}]}, "one box per frame"),
        ({"relations": [relation("dog chase cat", 0, 5) | {"sub_traj": [[9, 9, 2, 20]] * 5}]}, "width, height boxes"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    with pytest.raises(CausalVideoError, match=message):
        case(**changes)


ACT = """<script>
const card = document.querySelector('.case'), seen = {};
const look = (name) => { seen[name] = { label: card.querySelector('.stamp').textContent,
  boxes: [...card.querySelectorAll('.object')].map((box) => box.querySelector('b').textContent),
  dim: card.querySelectorAll('.object.dim').length,
  on: [...card.querySelectorAll('.relation.on b')].map((b) => b.textContent),
  at: card.querySelector('.now').style.left }; };
look('start');
const scrub = card.querySelector('.scrub'), rows = [...card.querySelectorAll('.who')];
scrub.value = 7; scrub.dispatchEvent(new Event('input')); look('slid');
rows[2].click(); look('picked');
rows[0].click(); look('elsewhere');
rows[0].click(); look('released');
seen.requests = performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).length;
seen.width = document.documentElement.scrollWidth <= innerWidth;
const out = document.createElement('pre'); out.id = 'seen'; out.textContent = JSON.stringify(seen);
document.body.append(out); </script></body>"""


@pytest.mark.slow
def test_in_a_browser_the_slider_moves_and_a_relation_shows_its_objects(tmp_path):
    page = browse(relations_html(case()).replace("</body>", ACT), tmp_path)
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', page)[1]))
    assert seen["start"]["on"] == ["chase", "near"] and seen["start"]["dim"] == 0
    assert seen["slid"]["label"] == "3.5 s" and seen["slid"]["on"] == ["near", "near"]
    assert seen["slid"]["boxes"] == ["1", "2", "3"] and seen["slid"]["at"] == "calc(88.75% - 1px)"
    assert seen["picked"]["label"] == "3.5 s" and seen["picked"]["dim"] == 1, "the cat is not of <dog near bird>"
    assert "chase" in seen["elsewhere"]["on"] and seen["elsewhere"]["label"] != "3.5 s", "it jumps to where it holds"
    assert seen["released"] == seen["elsewhere"] | {"dim": 0}
    assert seen["requests"] == 0 and seen["width"]
