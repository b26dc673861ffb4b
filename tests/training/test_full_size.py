"""One step of the paper's trainings at full size on real photographs: an R101 teaches an R50, 1333 x 800, on a CPU."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import benchmark.training.draws  # noqa: F401  registers what trainings draw by
import pgd.plugin  # noqa: F401  first, as a process of its own has nothing yet

# isort: split
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from benchmark.experiment.config import detector_config, model_dict, training_config
from benchmark.experiment.settings import Dataset, load
from benchmark.experiment.workspace import ROOT
from benchmark.prepare import prepare
from benchmark.training.usage import peak_memory_mb
from pgd.checkpoint import export

pytestmark = pytest.mark.long
DETECTORS = ("fcos", "autoassign", "atss", "gfl", "ddod")
#: random weights, as ImageNet's have to be fetched, and one image, which takes a minute of a core
LIGHT = {
    "model.backbone.init_cfg": None,
    "train_dataloader.batch_size": 1,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
}
MOST_MB = 20_000


def a_step(detector: str, sample: str, folder: str) -> dict:
    """Of PGD on this detector, in a process of its own, whose memory is measured."""
    os.chdir(folder)
    init_default_scope("mmdet")
    job = load(ROOT / "experiments" / "paper" / "params.yaml").student(f"{detector}-pgd")
    job = replace(job, run=replace(job.run, options={**job.run.options, **LIGHT}))
    data = prepare("coco", Dataset("coco", root=sample))
    set_random_seed(0)
    teacher = model_dict(detector_config(job.pair.teacher), len(data.classes))
    teacher["backbone"]["init_cfg"] = None
    export(MODELS.build(teacher), "teacher.pth")
    cfg = training_config(job, data, Path("teacher.pth"), Path("work"))
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    model, optimizer = runner.model, runner.build_optim_wrapper(runner.optim_wrapper)
    model.init_weights()
    model.train()
    own = dict(model.student.named_parameters())
    before = {name: value.detach().clone() for name, value in own.items()}
    taught = [value.clone() for value in model.teacher.state_dict().values()]
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    losses = model.train_step(batch, optimizer)
    return {
        "shapes": [tuple(image.shape) for image in batch["inputs"]],
        "losses": {name: value.item() for name, value in losses.items() if name.startswith("loss")},
        "method": model.method_losses,
        "finite": all(value.isfinite().all() for value in own.values()),
        "learnt": {name for name, value in own.items() if not value.equal(before[name])},
        "frozen": {name for name, value in own.items() if not value.requires_grad},
        "all": set(own),
        "taught": all(map(torch.equal, taught, model.teacher.state_dict().values())),
        "MB": peak_memory_mb(),
    }


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_step_of_pgd(detector, coco_sample, tmp_path):
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply(a_step, (detector, str(coco_sample.resolve()), str(tmp_path)))
    assert len(found["shapes"]) == 1
    assert all(min(shape[1:]) == 800 or max(shape[1:]) == 1333 for shape in found["shapes"])
    assert all(map(math.isfinite, found["losses"].values()))
    assert found["method"]
    assert all(found["losses"][name] > 0 for name in found["method"])
    assert found["finite"]
    assert found["frozen"], "stem and first stage stand still"
    assert not found["learnt"] & found["frozen"]
    assert len(found["learnt"]) > 0.9 * len(found["all"] - found["frozen"])
    assert found["taught"], "the teacher stays what it was"
    assert found["MB"] < MOST_MB
    print(f"{detector}: {found['MB']:.0f} MB")
