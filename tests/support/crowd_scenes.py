"""Crowds for the tests of the CrowdHuman metric: the released values' files, a toy set, random scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from pgd.evaluation import crowdhuman
from pgd.evaluation.odgt import check_detections, read_detections, read_odgt
from support.golden import GOLDEN

RELEASED = GOLDEN / "crowdhuman"
TRUTH = RELEASED / "annotation_val.odgt"
EXPECTED = {k: v for k, v in json.loads((RELEASED / "expected.json").read_text()).items() if k in ("AP", "MR", "JI")}
PERSON = {"tag": "person", "extra": {"box_id": 1}}
REGION = {"tag": "person", "extra": {"ignore": 1}}
MASK = {"tag": "mask"}
TOY = [
    {
        "size": (200, 100),
        "truth": [([10, 10, 40, 80], PERSON), ([150, 0, 50, 100], REGION), ([100, 10, 40, 80], PERSON)],
        "found": [([100, 30, 40, 60], 0.6), ([10, 10, 40, 80], 0.9), ([12, 10, 40, 80], 0.8), ([160, 10, 30, 60], 0.7)],
    },
    {
        "size": (200, 100),
        "truth": [([20, 20, 40, 60], PERSON), ([100, 20, 40, 60], MASK)],
        "found": [([20, 20, 40, 40], 0.5), ([70, 0, 30, 30], 0.95), ([100, 20, 40, 60], 0.3)],
    },
]


class Files:
    """Scenes as CrowdHuman's files."""

    def __init__(self, folder: Path, images: list[dict], names: list[str] | None = None) -> None:
        self.path = folder / "annotation.odgt"
        names = names or [f"{i:03d},ab{i}" for i in range(len(images))]
        lines = [
            {"ID": name, "gtboxes": [{**kind, "fbox": box, "hbox": box} for box, kind in image["truth"]]}
            for name, image in zip(names, images, strict=True)
        ]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.detections = [entry(name, image) for name, image in zip(names, images, strict=True)]

    def evaluate(self) -> dict[str, float]:
        return crowdhuman.evaluate(self.path, self.detections)

    def jaccard(self) -> np.ndarray:
        truths, found = read_odgt(self.path), dict(check_detections(self.detections))
        return crowdhuman.jaccard_by_score(
            [crowdhuman.overlaps(truths[name].without_empty(), found[name]) for name in truths]
        )


def entry(name: str, image: dict) -> dict:
    """Of a detections file."""
    width, height = image["size"]
    return {"ID": name, "width": width, "height": height, "boxes": [[*box, score] for box, score in image["found"]]}


def plain(images: list[dict]) -> list[dict]:
    """As the slow implementation takes them."""
    return [
        {**i, "truth": [(box, kind["tag"], kind.get("extra", {}).get("ignore", 0)) for box, kind in i["truth"]]}
        for i in images
    ]


def random_scenes(seed: int, distinct: bool = False) -> list[dict]:
    """Crowds across the borders, some boxes without an area, detections near persons, regions and nothing.

    Scores have two decimals, so that many are equal, unless they have to be distinct.
    """
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(rng.integers(3, 7)):
        size = rng.integers((60, 40), (160, 120)).tolist()
        boxes = np.concatenate((rng.uniform(-20, 0.9 * max(size), (9, 2)), rng.uniform(10, 60, (9, 2))), axis=1)
        boxes[1:4, :2] = boxes[0, :2] + rng.normal(0, 8, (3, 2))
        boxes = np.rint(boxes[: rng.integers(0, 10)])
        # sizes below zero are refused (test_crowdhuman_files.py)
        boxes[:, :2] *= np.where(rng.uniform(size=boxes.shape) < 0.02, -1, 1)[:, :2]
        boxes[rng.uniform(size=len(boxes)) < 0.06, 2] = 0
        kinds = rng.choice(
            [PERSON, PERSON, PERSON, {"tag": "person", "extra": {"ignore": 0}}, REGION, MASK], len(boxes)
        )
        truth = list(zip(boxes.tolist(), kinds.tolist(), strict=True))
        found = []
        for _ in range(rng.integers(0, 12)):
            near = boxes[rng.integers(len(boxes))] if len(boxes) and rng.random() < 0.8 else rng.uniform(5, 60, 4)
            box = near + rng.normal(0, 0.1, 4) * np.tile(near[2:], 2)
            found.append((box.round(1).tolist(), round(rng.random(), 12 if distinct else 2)))
        scenes.append({"size": size, "truth": truth, "found": found})
    return scenes


def samples(detections: list[dict]) -> list[DetDataSample]:
    """What a detector predicts, in single precision."""
    out = []
    for d in detections:
        rows = torch.tensor(d["boxes"], dtype=torch.float64).reshape(-1, 5)
        predicted = InstanceData(
            bboxes=torch.cat((rows[:, :2], rows[:, :2] + rows[:, 2:4]), dim=1).float(),
            scores=rows[:, 4].float(),
            labels=torch.zeros(len(rows), dtype=torch.long),
        )
        sample = DetDataSample(
            metainfo={
                "img_path": f"/data/CrowdHuman.v1/{d['ID']}.jpg",
                "img_id": d["ID"],
                "ori_shape": (d["height"], d["width"]),
                "img_shape": (800, 800),
            }
        )
        sample.pred_instances = predicted
        out.append(sample)
    return out


def measured(metric, predicted: list[DetDataSample], batch: int = 7) -> dict[str, float]:
    """What mmengine's evaluator says."""
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {"classes": ("person",)}
    for start in range(0, len(predicted), batch):
        evaluator.process(predicted[start : start + batch])
    return evaluator.evaluate(len(predicted))


def released_detections() -> list[dict]:
    return read_detections(RELEASED / "detections.json")
