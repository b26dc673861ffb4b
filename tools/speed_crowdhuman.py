"""Time the CrowdHuman metric against mmdet's ``CrowdHumanMetric``.

``python -m tools.speed_crowdhuman`` draws a crowd, writes its annotations to a temporary folder and hands the same
data samples to both as an mmengine evaluator does: a metric is built, takes all batches and evaluates. mmdet's runs as
it comes (ten processes for each of ten score thresholds) and with one process for each threshold. Their figures are
compared before they are timed; JI is allowed to differ by what mmdet's other matching makes. Times vary with what else
runs on the machine; the variants take turns, so that their ratios are fair.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("speed_crowdhuman", "tools")

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

import pgd.plugin  # noqa: F401  (serves mmcv's operators, which mmdet imports, and registers CrowdHumanBoxes)
from benchmark.experiment.cli import command_parser, run_cli

PERSONS, REGIONS = 23, 6
#: height of the smallest and of the largest person, pixels; width by height
SMALLEST, LARGEST, ASPECT = 40.0, 600.0, 0.41
BATCH = 16
#: mmdet gives four digits and compares IoU in single precision
TOLERANCE = {"AP": 2e-4, "MR": 2e-4, "JI": 1e-2}


class Disagreement(ValueError):
    """Two variants give different figures; the sentence says which."""


def crowd(images: int, detections: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Annotations and mmdet data samples: persons in groups, three of four detections near one, the rest anywhere."""
    rng = np.random.default_rng(seed)
    records, samples = [], []
    for i, share in enumerate(np.array_split(np.arange(detections), images)):
        size = rng.integers((800, 600), (1600, 1200))
        groups = rng.uniform(0, 1, (6, 2))

        def boxes(count: int, size=size, groups=groups) -> np.ndarray:
            height = SMALLEST * (LARGEST / SMALLEST) ** rng.uniform(size=count)
            center = size * (groups[rng.integers(len(groups), size=count)] + rng.normal(0, 0.08, (count, 2)))
            sides = np.stack((ASPECT * height * rng.uniform(0.8, 1.6, count), height), axis=1)
            return np.concatenate((center - sides / 2, sides), axis=1)

        persons, regions = boxes(1 + rng.poisson(PERSONS)), boxes(rng.poisson(REGIONS))
        near = rng.uniform(size=len(share)) < 0.75
        found = boxes(len(share))
        of = persons[rng.integers(len(persons), size=near.sum())]
        found[near] = of + rng.normal(0, 0.08, of.shape) * np.tile(of[:, 2:], 2)
        score = np.clip(rng.normal(0.25 + 0.35 * near, 0.2), 0.05, 0.99)
        name = f"{i:06d},{rng.integers(16**8):08x}"
        tagged = [("person", b) for b in persons] + [("mask", b) for b in regions]
        bodies = [{"tag": tag, "fbox": np.rint(b).astype(int).tolist(), "extra": {}} for tag, b in tagged]
        records.append({"ID": name, "gtboxes": [{**b, "hbox": b["fbox"]} for b in bodies]})
        found = found.round(1)
        predicted = {
            "bboxes": torch.from_numpy(np.concatenate((found[:, :2], found[:, :2] + found[:, 2:]), axis=1)),
            "scores": torch.from_numpy(score.round(5)),
            "labels": torch.zeros(len(share), dtype=torch.long),
        }
        shape = (int(size[1]), int(size[0]))
        samples.append({"img_id": name, "img_path": f"{name}.jpg", "ori_shape": shape, "pred_instances": predicted})
    return records, samples


VARIANTS: dict[str, dict] = {
    "mmdet": {"type": "CrowdHumanMetric"},
    "mmdet, one process": {"type": "CrowdHumanMetric", "num_ji_process": 1},
    "library": {"type": "CrowdHumanBoxes"},
}


def figures(variant: dict, annotations: str, samples: list[dict]) -> dict[str, float]:
    """AP, MR and JI as fractions."""
    metric = METRICS.build({**variant, "ann_file": annotations})
    metric.dataset_meta = {"classes": ("person",)}
    for start in range(0, len(samples), BATCH):
        metric.process({}, samples[start : start + BATCH])
    found = metric.evaluate(len(samples))
    if variant["type"] == "CrowdHumanBoxes":
        return {name: value / 100 for name, value in found.items()}
    return {"AP": found["crowd_human/mAP"], "MR": found["crowd_human/mMR"], "JI": found["crowd_human/JI"]}


def compare(annotations: str, samples: list[dict]) -> dict[str, dict[str, float]]:
    """The figures of all variants; raises :class:`Disagreement` unless they are the same."""
    found = {name: figures(variant, annotations, samples) for name, variant in VARIANTS.items()}
    expected = found["mmdet"]
    for name, ours in found.items():
        for figure, tolerance in TOLERANCE.items():
            if abs(ours[figure] - expected[figure]) > tolerance:
                raise Disagreement(f"{name}: {figure} is {ours[figure]:.5f}, not {expected[figure]:.5f}")
    return found


def measure(annotations: str, samples: list[dict], repeats: int) -> dict[str, list[float]]:
    """Seconds of every variant, ``repeats`` times each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name, variant in VARIANTS.items():
            start = time.perf_counter()
            figures(variant, annotations, samples)
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    args = command_parser("speed_crowdhuman", "tools").parse_args()
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel("ERROR")
    records, samples = crowd(args.images, args.detections, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.odgt"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        found = compare(str(path), samples)
        times = measure(str(path), samples, args.repeats)
    slow = median(times["mmdet"])
    print(f"{'variant':<18}  {'AP':>7}  {'MR':>7}  {'JI':>7}  {'median s':>8}  {'least s':>7}  {'times faster':>12}")
    for name, taken in times.items():
        values = "  ".join(f"{found[name][figure]:7.4f}" for figure in TOLERANCE)
        print(f"{name:<18}  {values}  {median(taken):>8.3f}  {min(taken):>7.3f}  {slow / median(taken):>12.1f}")


if __name__ == "__main__":
    run_cli(main, Disagreement)
