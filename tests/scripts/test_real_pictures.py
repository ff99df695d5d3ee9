"""Films of photographs: no class on both sides, windows that hold the answer, an environment that turns."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"


@pytest.fixture(scope="module")
def films():
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("real_pictures_films")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def photos(films):
    return films.Photos(torch.zeros(1000, 4), torch.eye(1000), [f"thing {number}" for number in range(1000)])


def test_the_window_shows_the_answer_and_test_classes_are_unseen(films, photos):
    shown = {}
    for split in films.SPLITS:
        questions, made = films.find_films(split, 12, photos, seed=3)
        shown[split] = {photo for film in made.values() for photo in film}
        for row in questions:
            start, end = map(int, row["spans"][0])
            inside = {photos.names[photo] for photo in made[row["video_id"]][start:end]}
            assert inside == {row["answer_text"]} and len(made[row["video_id"]]) == 64
            members = {photos.names[number] for number in films.members(row["question_type"])}
            assert set(row["choices"]) <= members and len(set(row["choices"])) == 4
            outside = made[row["video_id"]][:start] + made[row["video_id"]][end:]
            assert not set(row["choices"]) & {photos.names[photo] for photo in outside}  # one stretch fits alone
    assert not shown["test"] & shown["train"] and not shown["validation"] & (shown["train"] | shown["test"])


def test_the_environment_follows_in_training_and_never_in_ood_and_the_cause_errs(films):
    train, ood = (films.noisy_films(split, 2000, seed=5) for split in ("train", "ood"))
    follows = (train.environment_answer == train.answer).float().mean()
    assert abs(follows - (0.9 + 0.1 / 4)) < 0.03 and not (ood.environment_answer == ood.answer).any()
    kind_of = torch.full((1000,), -1)
    for number, group in enumerate(films.GROUPS):
        kind_of[films.members(group)] = number
    for made in (train, ood):
        causal = kind_of[made.photos[made.causal].view(2000, -1)[:, 0]]
        assert abs((causal == made.answer).float().mean() - 0.8) < 0.03
        assert (made.answer // 4 == made.question).all() and (made.causal.sum(1) == films.STRETCH).all()
    assert not set(train.photos.unique().tolist()) & set(ood.photos.unique().tolist())
