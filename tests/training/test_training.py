"""Training end to end on a dozen images: what is exported, repeated, refused."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from mmdet.registry import MODELS
from support.worlds import WITH_ADAPTERS, mini_settings, runs, same

from benchmark import train as stage
from benchmark.evidence.record import Record
from benchmark.experiment.config import detector_config, model_dict
from benchmark.experiment.settings import TEACHER, Dataset, SettingsError
from benchmark.experiment.workspace import HERE, Workspace, file_digest
from benchmark.prepare import prepare
from benchmark.training import run
from benchmark.training.resuming import point_to_newest
from pgd.checkpoint import CheckpointError, export, load_state, load_strict
from pgd.methods import METHODS, Method
from pgd.methods.base import settings_of
from pgd.methods.pgd import LEVEL_WEIGHTS

RUNS = {
    "student": {},
    "inherit": {"inherit": "head+neck"},
    **{m: {"method": m, "inherit": "head+neck", "settings": mini_settings(m)} for m in sorted(METHODS.module_dict)},
    # one with adapters, and one that starts from scratch
    "adapted": {"method": "fitnet", "settings": {"adapter": True}},
}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors")]


def every_run(content: dict) -> None:
    content["runs"] = {name: {"pair": "gfl", **own} for name, own in RUNS.items()}


@pytest.fixture
def runners(monkeypatch) -> list:
    """Every Runner that a training of the test builds."""
    built = []

    class Watched(run.Runner):
        @classmethod
        def from_cfg(cls, cfg):
            built.append(super().from_cfg(cfg))
            return built[-1]

    monkeypatch.setattr(run, "Runner", Watched)
    return built


def test_the_teacher(teacher_folder, tiny_data):
    files = {p.name for p in teacher_folder.iterdir()}
    assert files == {"weights.pth", "train.json", "curve.jsonl", "inherit.json"}
    record = json.loads((teacher_folder / "train.json").read_text())
    assert (record["iterations"], record["batch_size"]) == (2, 2)
    assert record["optimizer"].startswith("AdamW(lr=")
    assert record["extra_parameters"] == record["inherited_tensors"] == 0
    assert record["resumed"] is False
    metrics = json.loads(Workspace(teacher_folder.parents[2]).teacher_metrics("gfl").read_text())
    assert metrics.keys() == {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"}
    results = teacher_folder.parents[2] / "results"
    row = json.loads((results / "runs" / "teacher-gfl.json").read_text())
    assert row["accuracy"] == metrics
    assert row["role"] == "teacher"
    assert row["backbone"] == "resnet-34"
    assert row["parameters"] == record["parameters"]
    curve = pd.read_csv(results / "curves" / "teacher-gfl.csv")
    assert curve["step"].max() == 2
    assert curve["loss"].dropna().gt(0).all()


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_every_run(taught_world, runners, name):
    world = taught_world
    params = world.settle(every_run)
    weights = world.folder / "work" / "teachers" / "gfl" / "weights.pth"
    before = load_state(weights)
    out = world.train(params, name)
    model, run = runners[0].model, params.runs[name]

    # losses
    entries = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    losses = [e for e in entries if "loss" in e]
    assert [e["step"] for e in losses] == [2]
    assert [e["step"] for e in entries if "AP" in e] == [1, 2]
    assert all(math.isfinite(v) for e in entries for v in e.values())
    parts = {k: v for k, v in losses[0].items() if k.startswith("loss_")}
    assert sum(parts.values()) == pytest.approx(losses[0]["loss"], rel=1e-4)
    own = {k for k in parts if k.startswith(f"loss_{run.method.removesuffix('_released')}")}
    assert {"loss_cls", "loss_bbox", "loss_dfl"} == parts.keys() - own
    assert bool(own) == (run.method != "none")

    # what is exported is the plain detector
    state = load_state(out / "weights.pth")
    assert not [k for k in state if k.startswith(("teacher", "method", "student"))]
    cfg = detector_config(params.pairs["gfl"].student, run.options)
    plain = MODELS.build(model_dict(cfg, len(world.data.classes)))
    load_strict(plain, out / "weights.pth", "detector")
    assert same(dict(plain.state_dict()), dict(model.student.state_dict()))

    # what was saved could be gone on from
    saved = world.space.checkpoints(params.student(name, 0))
    assert point_to_newest(saved, runners[0].cfg.model, 0) == saved / "iter_2.pth"

    # the teacher is as it was, in memory and on disk
    assert same(load_state(weights), before)
    if run.needs_teacher:
        assert same(dict(model.teacher.state_dict()), before)
        assert not model.teacher.training
        assert {k.split(".")[0] for k in model.state_dict()} <= {"student", "method"}
    record = json.loads((out / "train.json").read_text())
    assert (record["inherited_tensors"] > 20) == (run.inherit != "none")
    assert (record["extra_parameters"] > 0) == (name in (*WITH_ADAPTERS, "adapted"))


def test_evaluation_of_a_student(taught_world, tiny_data):
    params = taught_world.settle(runs(pgd={"method": "pgd", "inherit": "head+neck", "settings": {"alpha": 0.1}}))
    out = taught_world.train(params, "pgd", seed=3)
    record = taught_world.evaluate(params, "pgd", seed=3)
    assert record == Record.read(Path("results/runs/pgd-3.json"))
    assert 0 <= record.accuracy["AP"] <= 100
    assert record.settings == {**settings_of("pgd"), "level_weights": list(LEVEL_WEIGHTS), "alpha": 0.1}
    assert (record.seed, record.role, record.dataset, record.inherit) == (3, "student", "minicoco", "head+neck")
    assert record.checkpoint_sha256 == file_digest(out / "weights.pth")
    assert list(record.class_ap) == list(taught_world.data.classes)
    measured = [ap for ap in record.class_ap.values() if ap is not None]
    assert sum(measured) / len(measured) == pytest.approx(record.accuracy["AP"], abs=1e-3)
    found = json.loads(Path("work/evaluate/pgd-3/detections.json").read_text())
    assert {d["image_id"] for d in found} <= set(range(1, 7))
    assert not HERE.teacher_metrics("pgd").exists(), "only the teacher has a gate"


#: what differs from one run to the next: times, and the memory of a process that has run before
OF_THE_MOMENT = ("train_seconds", "eval_seconds", "peak_memory_mb")


@pytest.mark.long
def test_seeds(taught_world):
    """A seed gives one student, one curve and one record, whatever the number of processes that load images."""
    found = []
    for seed, workers in ((0, 0), (0, 0), (0, 1), (1, 0)):
        params = taught_world.settle(runs(workers=workers, fgd={"method": "fgd"}))
        out = taught_world.train(params, "fgd", seed)
        record = asdict(taught_world.evaluate(params, "fgd", seed))
        for name in OF_THE_MOMENT:
            assert record.pop(name) > 0
        found.append((load_state(out / "weights.pth"), (out / "curve.jsonl").read_text(), record))
        shutil.rmtree("work/checkpoints")
        shutil.rmtree(out)
    first, again, loaded, other = found
    assert same(first[0], again[0])
    assert first[1:] == again[1:]
    # the number of workers is part of the config
    assert {name for name, value in first[2].items() if loaded[2][name] != value} == {"config_digest"}
    assert same(first[0], loaded[0])
    assert first[1] == loaded[1]
    name = "bbox_head.gfl_cls.weight"
    assert not torch.equal(first[0][name], other[0][name]), "another seed is another student"
    assert other[2]["checkpoint_sha256"] != first[2]["checkpoint_sha256"]


def test_trainings_that_begin_within_a_second_share_nothing(taught_world, runners, monkeypatch):
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    params = taught_world.settle(runs(student={}))
    out = taught_world.train(params, "student")
    first = load_state(out / "weights.pth")
    for folder in (out, Path("work/checkpoints")):
        shutil.rmtree(folder)
    taught_world.train(params, "student")
    assert runners[0].timestamp == runners[1].timestamp
    assert runners[0].message_hub is not runners[1].message_hub
    assert same(first, load_state(out / "weights.pth"))


def test_a_student_that_did_not_learn_is_an_error(taught_world):
    def still(content: dict) -> None:
        runs(student={})(content)
        content["pairs"]["gfl"]["student"]["options"]["optim_wrapper.optimizer.lr"] = 0.0

    params = taught_world.settle(still)
    with pytest.raises(FloatingPointError) as caught:
        taught_world.train(params, "student")
    assert str(caught.value) == (
        "student-0: the student's weights are what they were before the first step; is the learning rate 0?"
    )
    assert not Path("work/runs/student-0").exists()


@pytest.fixture
def bad_method(monkeypatch):
    """A method whose second term is not a number from its third step on."""

    class Bad(Method):
        needs = frozenset({"neck"})

        def __init__(self, context, value: float = math.nan) -> None:
            super().__init__(context)
            self.value = value
            # looking at gradients (benchmark/training/dynamics.py) is not counted
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

        def forward(self, step):
            self.steps += 1
            zero = step.student.neck[0].sum() * 0
            return {"loss_fine": zero, "loss_sick": zero + self.value if self.steps == 3 else zero}

    Bad.__module__ = __name__
    monkeypatch.setitem(METHODS._module_dict, "bad", Bad)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(taught_world, bad_method, value):
    params = taught_world.settle(runs(5, bad={"method": "bad", "settings": {"value": value}}))
    with pytest.raises(FloatingPointError) as caught:
        taught_world.train(params, "bad")
    assert str(caught.value).endswith(
        f"bad-0: loss_sick is {value} at iteration 3 (images 8, 5); training stopped, the checkpoint before is kept"
    )
    assert not Path("work/runs/bad-0").exists()


@pytest.mark.parametrize("gate", [50.0, None])
def test_a_poor_teacher_teaches_nobody(taught_world, gate):
    """Below the bound, or never evaluated."""
    metrics = HERE.teacher_metrics("gfl")
    if gate is None:
        metrics.unlink()
    params = taught_world.settle(lambda c: c["pairs"]["gfl"]["teacher"].update(min_ap=gate or 0.0))
    with pytest.raises(SettingsError) as caught:
        taught_world.train(params, "pgd")
    said = str(caught.value)
    assert said.startswith("work/teachers/gfl/weights.pth: the teacher has ")
    assert "pairs.gfl.teacher.min_ap" in said
    assert not Path("work/checkpoints").exists(), "nothing was trained"
    if gate is None:
        assert taught_world.train(params, "student").is_dir(), "who needs no teacher is trained"


def other_architecture(params, world, weights: Path) -> str:
    export(MODELS.build(model_dict(detector_config(params.pairs["gfl"].student), len(world.data.classes))), weights)
    return "does not fit the teacher ("


def truncated(params, world, weights: Path) -> str:
    weights.write_bytes(weights.read_bytes()[:-1000])
    return "unreadable, probably cut off while written"


def absent(params, world, weights: Path) -> str:
    weights.unlink()
    return "no such checkpoint; check the path, or run the stage"


@pytest.mark.parametrize("spoil", [other_architecture, truncated, absent])
def test_a_teacher_that_cannot_be_read(taught_world, spoil):
    params = taught_world.settle()
    weights = Path("work/teachers/gfl/weights.pth")
    said = spoil(params, taught_world, weights)
    with pytest.raises(CheckpointError) as caught:
        taught_world.train(params, "pgd")
    assert str(caught.value).startswith(f"{weights}: {said}")
    assert not Path("work/runs/pgd-0").exists()


def test_the_command_knows_its_runs(tiny_world, monkeypatch):
    tiny_world.settle()
    monkeypatch.setattr(sys, "argv", ["train", "distill", "pdg"])
    with pytest.raises(SettingsError, match=r"^no run 'pdg'; did you mean 'pgd'\?$"):
        stage.main()


RESIZED = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "Resize", "scale_factor": 0.3, "keep_ratio": True},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackDetInputs"},
]


def test_real_coco_images(coco_sample, tiny_world):
    """Eighty classes, images of many sizes in padded batches: teacher, student, figures."""

    def change(content: dict) -> None:
        for part in ("teacher", "student"):
            pipeline = json.loads(json.dumps(RESIZED))
            content["pairs"]["gfl"][part]["options"]["train_dataloader.dataset.pipeline"] = pipeline
        content["datasets"] = {"coco": settings}
        content["pairs"]["gfl"]["dataset"] = "coco"

    settings = {"root": str(coco_sample), "train_images": 8, "val_images": 4}
    data = prepare("coco", Dataset("coco", **settings))
    params = tiny_world.settle(change)
    assert params.datasets["coco"] == Dataset("coco", str(coco_sample), train_images=8, val_images=4)
    assert len(data.classes) == 80
    for name in (TEACHER, "pgd"):
        out = tiny_world.train(params, name)
        state = load_state(out / "weights.pth")
        assert state["bbox_head.gfl_cls.weight"].shape[0] == 80
        record = tiny_world.evaluate(params, name)
        assert record.dataset == "coco"
        assert all(0 <= record.accuracy[k] <= 100 for k in ("AP", "AP50", "AP75", "AR100"))
        rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
        assert all(math.isfinite(v) for row in rows for v in row.values())
