"""Every student of experiments/paper on COCO goes through an epoch as its schedule has it, on small images.

Loop, batches grouped by shape, rates, checkpoint and evaluation, which no test of single steps sees.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from benchmark.experiment.workspace import ROOT

pytestmark = pytest.mark.slow
CONTENT = yaml.safe_load((ROOT / "experiments" / "paper" / "params.yaml").read_text(encoding="utf-8"))
#: teachers differ from them in depth and length
CONFIGS = sorted({pair["student"]["config"] for pair in CONTENT["pairs"].values() if pair["dataset"] == "coco"})


@pytest.mark.parametrize("config", CONFIGS)
def test_an_epoch(tiny_world, config):
    def change(content: dict) -> None:
        student = content["pairs"]["gfl"]["student"]
        student |= {"config": config, "iterations": None}
        student["options"] |= {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 4}
        content["runs"] = {"student": {"pair": "gfl"}}

    tiny_world.describe(replace(tiny_world.data, image_size=[96, 96]))
    out = tiny_world.train(tiny_world.settle(change), "student")
    record = json.loads((out / "train.json").read_text())
    assert record["iterations"] == 3
    assert record["effective_batch"] == 4
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in curve if "AP" in entry] == [3]
