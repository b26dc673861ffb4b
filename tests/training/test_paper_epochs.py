"""Every student of experiments/paper goes through an epoch as its schedule has it, on small images.

Loop, batches grouped by shape, rates, checkpoint and evaluation, which no test of single steps sees.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import ROOT
from benchmark.prepare import prepare

pytestmark = pytest.mark.long
CONTENT = yaml.safe_load((ROOT / "experiments" / "paper" / "params.yaml").read_text(encoding="utf-8"))
#: teachers differ from them in depth and length
CONFIGS = sorted({(pair["dataset"], pair["student"]["config"]) for pair in CONTENT["pairs"].values()})
#: drawn images stand for photographs
DATA = {
    name: Dataset(kind, train_images=12, val_images=6)
    for name, kind in (("coco", "minicoco"), ("crowdhuman", "minicrowd"))
}


@pytest.mark.parametrize(("data", "config"), CONFIGS)
def test_an_epoch(tiny_world, data, config):
    def change(content: dict) -> None:
        pair = content["pairs"]["gfl"]
        content["datasets"], pair["dataset"] = {data: {"kind": DATA[data].kind}}, data
        pair["student"] |= {"config": config, "iterations": None}
        pair["student"]["options"] |= {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 4}
        content["runs"] = {"student": {"pair": "gfl"}}

    tiny_world.describe(replace(prepare(data, DATA[data]), image_size=[96, 96]))
    out = tiny_world.train(tiny_world.settle(change), "student")
    record = json.loads((out / "train.json").read_text())
    assert record["iterations"] == 3
    assert record["effective_batch"] == 4
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in curve if "AP" in entry] == [3]
