"""What the demo shows at its end: how good its evidence is, and answers about films it never saw, drawn."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hf_causal_video.data import VideoQACollator, VideoQADataset
from hf_causal_video.features.store.reader import FeatureStore
from hf_causal_video.worlds import WorldConfig, draw_clips
from hf_causal_video.worlds.clips import world_questions
from hf_causal_video.worlds.render import read_truth, render_split
from scripts.demo.networks import box_iou, frame_numbers

UNSEEN_SEED = 2  # of films that were never rendered before; those of the demo have seed 0


@torch.inference_mode()
def evidence_quality(folder: Path, split: str) -> dict[str, float]:
    """Percent of kept frames inside the true window, and how often there the true actor (IoU > 0.5) is among the kept
    objects; and what a uniform choice of frames, a random choice of as many regions, would get."""
    from transformers import AutoModel, AutoProcessor

    model, processor = (auto.from_pretrained(str(folder / "model")) for auto in (AutoModel, AutoProcessor))
    questions = Dataset.from_parquet(str(folder / "questions" / f"{split}.parquet"))
    truths = read_truth(folder / "world", split)
    dataset = VideoQADataset(questions, FeatureStore.open(folder / "features"))
    collator = VideoQACollator(processor, with_labels=False)
    inside, hits, random_hits = [], [], []
    for start in range(0, len(dataset), 64):
        items = [dataset[index] for index in range(start, min(start + 64, len(dataset)))]
        output = model.eval()(**collator(items))
        for row, item in enumerate(items):
            causal, kept = torch.tensor(item["causal_frames"]), output.kept_frames[row]
            inside.append(causal[kept].float().mean())
            truth = truths[item["video_id"]]
            shown = frame_numbers(item["timestamps_s"], truth)
            true_boxes = torch.from_numpy(truth.boxes[shown, item["causal_object"]])
            for slot, frame in enumerate(kept.tolist()):
                regions = item["object_boxes"][frame][item["object_mask"][frame]]
                if causal[frame] and len(regions):
                    found = box_iou(output.kept_boxes[row, slot], true_boxes[frame]) > 0.5
                    hits.append(found.any().float())
                    misses = int((box_iou(regions, true_boxes[frame]) <= 0.5).sum())
                    picks = min(output.kept_boxes.shape[2], len(regions))
                    random_hits.append(torch.tensor(1 - math.comb(misses, picks) / math.comb(len(regions), picks)))
    shares = {
        "kept frames in the window": inside,
        "uniform frames in the window": [torch.tensor(row).float().mean() for row in questions["causal_frames"]],
        "the actor among kept objects": hits,
        "the actor among random objects": random_hits,
    }
    return {name: float(100 * torch.stack(values).mean()) if values else 0.0 for name, values in shares.items()}


def answer_and_draw(folder: Path, world: WorldConfig, num_pictures: int = 6) -> None:
    """Load the trained model as a stranger would, ask about a film rendered just now, and draw what it looked at."""
    from transformers import AutoModel, AutoProcessor, pipeline

    import hf_causal_video.pipelines.question_answering  # noqa: F401  (registers the task)
    from hf_causal_video.viewer import EvidenceCase, save_strip, write_report

    model, processor = (auto.from_pretrained(str(folder / "model")) for auto in (AutoModel, AutoProcessor))
    qa: Any = pipeline("video-question-answering", model=model, processor=processor)  # type: ignore[call-overload]
    size = json.loads((folder / "world" / "truth" / "iid.json").read_text())["size"]
    films = [(folder / "unseen", world_questions(draw_clips(world, "iid", 1, UNSEEN_SEED)))]
    render_split(folder / "unseen", "iid", 1, world, seed=UNSEEN_SEED, size=size, progress=False)
    others = Dataset.from_parquet(str(folder / "questions" / "ood.parquet"))
    films += [(folder / "world", others.select([row])) for row in range(min(6, len(others)))]
    cases = []
    for place, rows in films:
        clip = place / "videos" / f"{rows[0]['video_id']}.mp4"
        if place == folder / "unseen":  # the app offers it as an example
            (folder / "model" / "examples").mkdir(exist_ok=True)
            shutil.copy2(clip, folder / "model" / "examples")
        answers = qa(str(clip), question=rows["question"][:], return_frames=True)
        for row, result in zip(rows, answers, strict=True):
            truth = {"true_answer": row["answer_text"], "true_spans": row["spans"], "duration_s": row["duration_s"]}
            title = f"{clip.name}, never seen in training"
            cases.append(EvidenceCase.of_result(row["question"], result, title, **truth))
            verdict = "right" if cases[-1].right else f"wrong, it is {row['answer_text']}"
            print(f"  {clip.name}: {row['question']}? {result['answer']} ({result['score']:.0%}), {verdict}")
    # first the right answers that fall without their evidence: those are what the pictures are to show
    cases.sort(key=lambda case: (not case.right, not (case.verdict and case.verdict.necessary)))
    for number, case in enumerate(cases[:num_pictures], 1):
        save_strip(case, folder / f"evidence-{number}.png")
    metrics = json.loads((folder / "summary.json").read_text())
    write_report(
        folder / "report.html", cases, metrics, "What it answered about films it never saw, and why",
        "TranSTR, trained in minutes on rendered films of the confounded world. Numbers in percent, measured here.",
    )  # fmt: skip
    print(f"  drawn: {folder / 'report.html'} and {min(num_pictures, len(cases))} pictures", flush=True)
