"""Time what trainings on two CPU cores are made of, each beside what mmdet does by default.

``python -m tools.speed`` (in the repository, after ``dvc repro prepare@minicoco``) measures in one process, variants
in turns, so that their ratios are fair whatever else the machine does, and writes ``results/speed.json`` and
``results/speed.png``; ``--quick`` takes a minute and three turns. Milliseconds, median and quartiles, of

- ``steps``, by detector: a training step of the student as mmdet has it (channels first, an optimiser that takes one
  parameter after the other), as it is here, the teacher's forward pass, PGD's maps, and a step of every method with a
  live teacher; ``ratio`` is that to the student's step and the teacher's pass together,
- ``growth``: PGD's maps and step against objects an image, images a batch and side of the image,
- ``loader``: a batch of eight images, loaded and augmented by one process,
- ``evaluation``: COCO's figures of many detections by pycocotools and as it is here,
- ``deformable``: a deformable convolution of DDOD's mini head, there and back, by torchvision and as it is here,
- ``start``: of a training until it is ready to build its model, and of ``--help``.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("speed", "tools")

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torchvision.ops import deform_conv2d
from tqdm import tqdm

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.cost import build, first_batches
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo, detector_config, model_dict, training_config
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, SettingsError, parse
from benchmark.experiment.workspace import ROOT
from benchmark.figures.looks import COLOURS, paint, style
from benchmark.training.combinations import combinations
from benchmark.training.usage import machine
from pgd.checkpoint import export
from pgd.deformable import Geometry, deform_conv
from pgd.evaluation.matching import evaluated, figures
from pgd.methods.base import method_class
from tools.steps import QUICK, Subject, batch_of, spread, step_of

DETECTORS = ("gfl", "atss")
BATCHES = 4
#: what PGD's cost is measured against: its values, and the others' while it changes
GROWTH = {"objects": (1, 3, 10, 30, 100, 300), "images": (1, 2, 4, 8, 16), "side": (96, 160, 256, 416, 640)}
USUAL = {"objects": 7, "images": 4, "side": 160}
#: detections an image
DETECTIONS = 60
TRAIN = [sys.executable, "-c", "import benchmark.train"]
HELP = [sys.executable, "-m", "benchmark.train", "--help"]

Work = Callable[[int], object]


def in_turns(variants: dict[str, Work], turns: int, what: str) -> dict[str, list[float]]:
    """Milliseconds of each variant, called with the number of the turn; two turns before the first are not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in tqdm(range(-2, turns), desc=what, mininterval=2):
        for name, work in variants.items():
            start = time.perf_counter()
            work(turn)
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def pairs_of(detectors: tuple[str, ...]) -> Params:
    """The mini pairs of these detectors."""
    depths = {"teacher": 34, "student": 18}
    pairs = {
        name: {kind: {"config": f"benchmark/configs/mini/{name}_r{depth}.py"} for kind, depth in depths.items()}
        for name in detectors
    }
    return parse({"datasets": {"minicoco": {}}, "pairs": pairs, "runs": {"student": {"pair": detectors[0]}}})


def stepper(job: Job, data: DatasetInfo, teacher: Path | None, batches: list[dict]) -> tuple[Work, torch.nn.Module]:
    """A training step on one batch after the other, as the stage `cost` has it, and the model."""
    model, step = build(job, data, teacher)
    return lambda turn: step(batches[turn % len(batches)]), model


def literal(job: Job, data: DatasetInfo, batches: list[dict]) -> Work:
    """The student's step as mmdet's own configs have it."""
    plain = replace(job.run, options={"optim_wrapper.optimizer.fused": False})
    work, model = stepper(replace(job, run=plain), data, None, batches)
    model.memory_format = torch.contiguous_format
    model.student.to(memory_format=model.memory_format)
    return work


def steps(detector: str, data: DatasetInfo, turns: int, folder: Path) -> dict[str, Any]:
    """Times of everything that a training of this detector can consist of."""
    params = pairs_of((detector,))
    runs, _ = combinations(params)
    job = params.student("student")
    batches = first_batches(job, data, BATCHES)
    teacher = folder / f"{detector}.pth"
    export(MODELS.build(model_dict(detector_config(job.pair.teacher), len(data.classes))), teacher)
    variants: dict[str, Work] = {}
    variants["student, literal"] = literal(job, data, batches)
    variants["student"], _ = stepper(job, data, None, batches)
    places = {}
    for run in runs.values():
        # B3 takes batches of five at most
        more = {"faults": ["B1", "B4", "B5"]} if run.method == "pgd_released" else {}
        run = replace(run, inherit="none", settings=run.settings | more)
        variants[run.method], model = stepper(replace(job, run=run), data, teacher, batches)
        places[run.method] = model.method.place
        if run.method == "pgd":
            guided = model
    ready = [guided.data_preprocessor(batch, True) for batch in batches]

    @torch.no_grad()
    def teach(turn: int) -> None:
        inputs = ready[turn % BATCHES]["inputs"].contiguous(memory_format=torch.channels_last)
        guided.teacher.bbox_head(guided.teacher.extract_feat(inputs))

    kept = [step_of(guided, batch["inputs"], batch["data_samples"]) for batch in ready]
    variants["teacher"] = teach
    variants["PGD's maps"] = lambda turn: guided.method.masks(kept[turn % BATCHES])
    times = in_turns(variants, turns, detector)
    base = np.add(times["student"], times["teacher"])
    return {
        "ms": {name: spread(ms) for name, ms in times.items()},
        "ratio": {run.method: spread(list(np.divide(times[run.method], base))) for run in runs.values()},
        "student, literal / student": spread(list(np.divide(times["student, literal"], times["student"]))),
        "place": places,
    }


def train(subject: Subject, batch: tuple) -> None:
    """Forward, backward, optimiser."""
    total, _ = subject.model.parse_losses(subject.model.loss(*batch))
    subject.optimizer.zero_grad()
    total.backward()
    subject.optimizer.step()


def growth(turns: int) -> dict[str, Any]:
    """Milliseconds of PGD's maps and step, one quantity changed at a time."""
    subject = Subject("pgd", "gfl", QUICK, "cpu")
    found: dict[str, Any] = {}
    for quantity, values in GROWTH.items():
        variants: dict[str, Work] = {}
        for value in values:
            sizes = {**USUAL, quantity: value}
            scale = replace(QUICK, image=(sizes["side"],) * 2, padded=(sizes["side"],) * 2)
            batch = batch_of(sizes["images"], scale, "cpu", sizes["objects"])
            step = step_of(subject.model, *batch)
            variants[f"maps {value}"] = lambda turn, step=step: subject.model.method.masks(step)
            variants[f"step {value}"] = lambda turn, batch=batch: train(subject, batch)
        times = in_turns(variants, turns, quantity)
        found[quantity] = {
            what: {str(value): spread(times[f"{what} {value}"]) for value in values} for what in ("maps", "step")
        }
    return found


def loader(data: DatasetInfo, turns: int) -> dict[str, Any]:
    """A batch of the student's pipeline, by the process itself."""
    params = pairs_of(("gfl",))
    cfg = training_config(params.student("student"), data, None, Path()).train_dataloader
    cfg.update(num_workers=0, persistent_workers=False)
    batches = iter(Runner.build_dataloader(cfg, seed=0))
    return spread(in_turns({"batch": lambda turn: next(batches)}, turns, "loader")["batch"])


def evaluation(data: DatasetInfo, turns: int) -> dict[str, Any]:
    """COCO's figures of boxes near the objects and elsewhere."""
    content = json.loads(Path(data.val_annotations).read_text(encoding="utf-8"))
    rng, found = np.random.default_rng(0), []
    boxes = np.array([a["bbox"] for a in content["annotations"]])
    for image in content["images"]:
        chosen = boxes[rng.integers(len(boxes), size=DETECTIONS)] * rng.uniform(0.8, 1.2, (DETECTIONS, 4))
        labels, scores = rng.integers(len(data.classes), size=DETECTIONS), rng.random(DETECTIONS)
        found += [
            {"image_id": image["id"], "category_id": content["categories"][k]["id"], "bbox": list(b), "score": float(s)}
            for b, k, s in zip(chosen, labels, scores, strict=True)
        ]
    ranges = (0, 1e10), (0, data.areas[0]), tuple(data.areas), (data.areas[1], 1e10)

    def by(**library: Any) -> list[float]:
        return figures(evaluated(content, found, ranges, **library))

    ours, theirs = by(), by(library=None)
    times = in_turns({"pycocotools": lambda turn: by(library=None), "here": lambda turn: by()}, turns, "evaluation")
    return {
        "detections": len(found),
        "largest difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        "ms": {name: spread(ms) for name, ms in times.items()},
        "pycocotools / here": spread(list(np.divide(times["pycocotools"], times["here"]))),
    }


def deformable(turns: int) -> dict[str, Any]:
    """Of eight images of 160 pixels on the finest level."""
    shapes = (8, 32, 20, 20), (32, 32, 3, 3), (8, 18, 20, 20)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1, 1)
    variants = {
        "torchvision": lambda turn: deform_conv2d(inputs[0], inputs[2], inputs[1], padding=1).sum().backward(),
        "here": lambda turn: deform_conv(*inputs, None, None, geometry).sum().backward(),
    }
    times = in_turns(variants, turns, "deformable convolution")
    return {
        "ms": {name: spread(ms) for name, ms in times.items()},
        "torchvision / here": spread(list(np.divide(times["torchvision"], times["here"]))),
    }


def start(turns: int) -> dict[str, Any]:
    """Of processes."""
    variants = {
        name: lambda turn, command=command: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for name, command in (("training", TRAIN), ("--help", HELP))
    }
    return {name: spread(ms) for name, ms in in_turns(variants, turns, "start-up").items()}


def draw(content: dict[str, Any]) -> Figure:
    """Steps of all methods relative to their parts, and how PGD's cost grows."""
    style()
    shown = content["steps"]
    figure = Figure(figsize=(9.6, 7.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    for axes, (detector, found) in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        ratios = dict(sorted(found["ratio"].items(), key=lambda item: item[1]["median"]))
        for y, (method, ratio) in enumerate(ratios.items()):
            tint = paint({"method_place": found["place"][method]})
            axes.hlines(y, ratio["lower"], ratio["upper"], color=tint, linewidth=2)
            axes.plot(ratio["median"], y, "o", color=tint)
        axes.axvline(1, color=COLOURS["none"], linewidth=1.1)
        axes.set_yticks(range(len(ratios)), [method_class(name).title or name for name in ratios])
        axes.set(title=detector.upper(), xlabel="step / (student's step + teacher's pass)")
        axes.grid(axis="y", visible=False)
    for axes, (quantity, found) in zip(lower.subplots(1, len(GROWTH)), content["growth"].items(), strict=True):
        for what, points in found.items():
            x = [int(value) for value in points]
            axes.plot(x, [point["median"] for point in points.values()], "o-", label=f"PGD's {what}")
        axes.set(xscale="log", yscale="log", xlabel={"side": "side of the image"}.get(quantity, f"{quantity}"))
        axes.set_xticks(x, [str(value) for value in x])
        axes.minorticks_off()
        axes.set_ylabel("ms" if quantity == "objects" else "")
    axes.legend()
    return figure


def measure(data: DatasetInfo, turns: int, detectors: tuple[str, ...] = DETECTORS) -> dict[str, Any]:
    """Everything, by one thread: independent trainings share the cores."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        by_detector = {name: steps(name, data, turns, Path(folder)) for name in detectors}
    return {
        "machine": machine(),
        "turns": turns,
        "steps": by_detector,
        "growth": growth(max(3, turns // 2)),
        "loader": loader(data, 4 * turns),
        "evaluation": evaluation(data, max(3, turns // 4)),
        "deformable": deformable(turns),
        "start": start(max(2, turns // 6)),
    }


def main() -> None:
    args = command_parser("speed", "tools").parse_args()
    quiet()
    init_default_scope("mmdet")
    turns, detectors = (3, DETECTORS[:1]) if args.quick else (args.turns, DETECTORS)
    content = measure(DatasetInfo.load("minicoco"), turns, detectors)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(content).savefig(args.out / "speed.png", dpi=110)
    for detector, found in content["steps"].items():
        print(f"{detector}: literal / ours {found['student, literal / student']['median']:.2f}", end="")
        print("".join(f", {method} {ratio['median']:.2f}" for method, ratio in found["ratio"].items()))


if __name__ == "__main__":
    run_cli(main, SettingsError)
