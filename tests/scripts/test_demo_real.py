"""The demo on real pictures: shipped networks, spliced films, training, and a page, from a folder of photographs."""

import json

import numpy as np
import pytest
from PIL import Image

from scripts.demo import run as demo
from scripts.demo.real import packages_missing


@pytest.mark.slow
def test_the_quick_demo_on_photographs_ends_in_a_page(tmp_path, monkeypatch, capsys):
    if missing := packages_missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    photos = tmp_path / "photos"
    photos.mkdir()
    draw = np.random.default_rng(0)
    for number in range(12):
        noise = draw.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(photos / f"thing{'abcdefghijkl'[number]}.jpg")
    folder = tmp_path / "demo"
    assert demo.main(["--real", str(photos), "--quick", "--output", str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 10_000 and len(list(folder.glob("evidence-*.png"))) == 2
    results = json.loads((folder / "summary.json").read_text())
    assert 0 <= results["TranSTR"]["mIoP"] <= 100 and 0 <= results["untrained cosine"]["Acc"] <= 100
    splits = json.loads((folder / "films" / "splice.json").read_text())["splits"]
    assert splits["test"]["clips"] + splits["train"]["clips"] == 12


def test_too_few_clips_end_with_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scripts.demo.real.install_missing", lambda: None)
    monkeypatch.setattr("scripts.demo.real.RealDemo.fetch", lambda self: {})
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / "in" / f"thing{'abc'[number]}.png")
    assert demo.main(["--real", str(tmp_path / "in"), "--quick", "--output", str(tmp_path / "out")]) == 2
    assert "at least 4, the stretches of a film" in capsys.readouterr().err
