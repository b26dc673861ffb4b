"""What an experiment would take: operations against another counter, sums by hand, what is missing."""

from __future__ import annotations

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import get_model_complexity_info

from benchmark.experiment.budget import (
    KNOWN,
    OVERHEAD,
    Images,
    Share,
    budget,
    image_size,
    images_of,
    makespan,
    missing_of,
    row_of,
    size_of,
    steps_of,
)
from benchmark.experiment.budget_table import cells, markdown, sentences
from benchmark.experiment.config import detector_config
from benchmark.experiment.operations import work_of
from benchmark.experiment.settings import Dataset, Detector, load
from benchmark.experiment.workspace import ROOT, Workspace

PAPER = "benchmark/configs/paper/gfl_r50_1x.py"
MINI = "benchmark/configs/mini/gfl_r18.py"


@pytest.mark.parametrize(
    ("trainings", "gpus", "expected"),
    [
        ([(3, 1), (3, 1), (2, 1), (2, 1), (2, 1)], 2, 7),
        ([(5, 1), (1, 1), (1, 1)], 8, 5),
        ([(4, 1), (3, 1), (2, 1)], 1, 9),
        ([], 8, 0),
        ([(8, 4), (3, 1), (1, 1)], 4, 5),
        ([(8, 4), (3, 1), (1, 1)], 6, 3),
        ([(8, 16)], 4, 2),
    ],
)
def test_makespan(trainings, gpus, expected):
    assert makespan([Share(*own) for own in trainings], gpus) == expected


@pytest.mark.parametrize(("gpus", "expected"), [(1, 19), (2, 11), (8, 11)])
def test_students_wait_for_their_own_teacher(gpus, expected):
    """Those of the quick teacher are done before the slow one is."""
    quick = [Share(2, 1, "quick", True), Share(3, 1, "quick"), Share(3, 1, "quick")]
    assert makespan([Share(10, 1, "slow", True), Share(1, 1, "slow"), *quick], gpus) == expected


def test_image_sizes():
    """Of a 4:3 image, padded to 32."""
    assert size_of(detector_config(Detector(PAPER))) == (800, 1088)
    # 480 to 960 and 1333 at most: the middle
    assert size_of(detector_config(Detector("benchmark/configs/paper/gfl_r101_3x.py"))) == (736, 960)
    # trained on as they are: as they are tested on
    assert size_of(detector_config(Detector(MINI))) == (160, 160)
    assert image_size([{"type": "RandomFlip", "prob": 0.5}], 32) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_operations_agree_with_another_counter():
    """mmengine counts a multiplication with its addition as one, and normalisation and upsampling too."""
    cfg = detector_config(Detector(MINI, options={"model.backbone.init_cfg": None}))
    work = work_of(cfg, 8, (160, 160))
    cfg.model.bbox_head.num_classes = 8
    detector = MODELS.build(cfg.model).eval()
    detector.forward = detector._forward
    other = get_model_complexity_info(
        detector, inputs=(torch.zeros(1, 3, 160, 160),), show_table=False, show_arch=False
    )
    assert 2 * other["flops"] == pytest.approx(work.forward, rel=0.05)
    assert other["params"] == work.parameters == sum(p.numel() for p in detector.parameters())


@pytest.mark.slow
def test_a_step_is_up_to_three_passes():
    """Backward computes the gradients of weights and of inputs, but not where the backbone is frozen."""
    work = work_of(detector_config(Detector(PAPER)), None, (256, 256))
    assert 2.5 < work.step / work.forward < 3
    assert work.parameters == pytest.approx(32.3e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfl", "atss", "fcos"])
def test_memory_is_what_a_gpu_took_but_for_losses_and_workspaces(name):
    (measured,) = ROOT.glob("results/gpu/nvidia-h100*.json")
    blocks = json.loads(measured.read_text())["blocks"]
    (taken,) = (
        block["peak_mib"]["student"] * 2**20
        for block in blocks
        if (block["detector"], block["batch"], block["precision"]) == (name, 2, "fp32")
    )
    work = work_of(detector_config(Detector(f"benchmark/configs/paper/{name}_r50_1x.py")), None, (800, 1344))
    assert 0.8 * taken < work.memory(images=2, states=1) < taken


@pytest.mark.slow
def test_a_head_with_deformable_convolutions():
    """Shapes alone give no backward of these; beside ATSS there are the convolutions that predict offsets."""
    ddod, atss = (
        work_of(detector_config(Detector(f"benchmark/configs/mini/{name}_r18.py")), 8, (160, 160))
        for name in ("ddod", "atss")
    )
    assert 2.5 < ddod.step / ddod.forward < 3
    assert 1.0 < ddod.forward / atss.forward < 1.4


def test_steps():
    assert steps_of(detector_config(Detector(PAPER)), KNOWN["coco"][0]) == 12 * 29317
    assert steps_of(detector_config(Detector(MINI, iterations=7)), None) == 7
    assert steps_of(detector_config(Detector(PAPER)), None) is None
    assert steps_of(detector_config(Detector(PAPER)), KNOWN["coco"][0], gpus=8) == 12 * 3665


def test_images_before_the_data_are_there(tmp_path):
    space = Workspace(tmp_path)
    assert images_of("a", Dataset("coco", root="x"), space) == Images(117266, 5000, None)
    assert images_of("a", Dataset("coco", root="x", train_images=50), space) == Images(50, 5000, None)
    own = Dataset("coco", root="x", layout={"train": ("a.json", "b")})
    assert images_of("a", own, space) == Images(None, None, None)


@pytest.fixture(scope="module")
def mini():
    return budget(load(ROOT / "params.yaml"), 30.0, Workspace(ROOT / "nowhere"))


@pytest.mark.slow
def test_hours_follow_from_the_throughput(mini):
    """The first pair's student alone is what the throughput is stated for."""
    rows = {row.name: row for row in mini.rows}
    plain, taught, teacher = rows["student-0"], rows["pgd-0"], rows["teacher-gfl"]
    assert (plain.steps, plain.images) == (400, 3200)
    val = 500 * plain.work.forward / plain.work.step
    assert plain.gpu_hours == pytest.approx((3200 + val) / 30 / 3600)
    assert rows["inherit-0"].gpu_hours == plain.gpu_hours
    assert taught.per_image == pytest.approx(OVERHEAD * (plain.work.step + teacher.work.forward))
    assert mini.gpu_hours == pytest.approx(sum(row.gpu_hours for row in mini.rows))
    assert mini.wall_hours(1) == pytest.approx(mini.gpu_hours)
    students = max(row.gpu_hours for row in mini.rows if not row.teacher)
    assert mini.wall_hours(64) == pytest.approx(teacher.gpu_hours + students)
    assert mini.disk(2) > mini.disk(1) > mini.data


@pytest.mark.slow
def test_a_given_teacher_trains_no_step():
    from dataclasses import replace

    params = load(ROOT / "params.yaml")
    job = params.teacher("gfl")
    given = replace(job.pair.teacher, iterations=None, checkpoint="t.pth")
    row = row_of(replace(job, pair=replace(job.pair, teacher=given)), Images(10, 10, 8), 1e12)
    assert (row.steps, row.images, row.scratch) == (0, 0, 0)


@pytest.mark.slow
def test_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    params = load(ROOT / "experiments" / "paper" / "params.yaml")
    told = missing_of(params, Workspace(tmp_path))
    assert told[0].startswith("coco: 4 files and folders are not there (first: ")
    assert told[0].endswith("`python -m benchmark.fetch coco --root ~/datasets/coco`")
    names = ["torchvision", "torchvision", "open-mmlab", "torchvision"]
    assert [line.split(":")[0] for line in told[1:]] == ["crowdhuman", *names]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet50-0676ba61.pth").write_bytes(b"")
    assert len(missing_of(params, Workspace(tmp_path))) == len(told) - 1


@pytest.mark.slow
def test_tables(mini):
    head, *rows = cells(mini, 2.0)
    assert {len(row) for row in rows} == {len(head)}
    assert head[-1] == "cost"
    assert float(rows[-1][-1]) == pytest.approx(2 * mini.gpu_hours, abs=0.01)
    assert len(cells(mini, None)[0]) == len(head) - 1
    text = markdown(mini, [8, 64], 30.0, None)
    assert text.count("\n| ") == len(rows) + 1
    assert [line for line in sentences(mini, [8, 64], 30.0) if line.startswith(("8 GPUs: ", "64 GPUs: "))][1:]
