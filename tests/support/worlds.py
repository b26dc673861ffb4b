"""Small worlds to run stages in: a folder with settings, a dozen images and, where asked, a trained teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import torch
import yaml

from benchmark.data.minicoco import MINI as MINICOCO
from benchmark.data.minicoco import annotate, coco_json, file_name, render
from benchmark.evidence.record import Record
from benchmark.experiment.config import MINI, DatasetInfo
from benchmark.experiment.settings import TEACHER, Job, Params, load
from benchmark.experiment.workspace import Workspace
from benchmark.match import match
from benchmark.plan import plan
from benchmark.prepare import MINI_AREAS
from pgd.methods import METHODS
from pgd.scaling import published_settings

IMAGES = {"train": 12, "val": 6}
#: No pretrained file, no worker processes.
LIGHT = {
    "model.backbone.init_cfg": None,
    "train_dataloader.batch_size": 2,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
}


#: methods with parameters of their own
WITH_ADAPTERS = ("acamkd", "cankd", "cskd", "defeat", "fgd", "fkd", "frs", "icd", "maskd", "mgd", "tinykd")


def mini_settings(method: str) -> dict:
    """What goes with the size of a detector, for a mini one, and no warm-up: the method teaches from the first step."""
    published = published_settings(method, "gfl", MINI)
    return {name: 0 if name == "warmup" else published[name] for name in METHODS.get(method).scaling}


def light_content(data: str = "minicoco") -> dict:
    """A params.yaml for some seconds of work on a data set of this name."""
    return {
        "datasets": {"minicoco": {}},
        "pairs": {
            "gfl": {
                "dataset": data,
                "teacher": {
                    "config": "benchmark/configs/mini/gfl_r34.py",
                    "iterations": 2,
                    "seed": 0,
                    "options": dict(LIGHT),
                },
                "student": {
                    "config": "benchmark/configs/mini/gfl_r18.py",
                    "iterations": 2,
                    "options": dict(LIGHT),
                },
            }
        },
        "seeds": [0],
        "runs": {"student": {"pair": "gfl"}, "pgd": {"pair": "gfl", "method": "pgd", "inherit": "head+neck"}},
    }


def runs(iterations: int = 2, workers: int = 0, **chosen: dict):
    """A change of the settings: these runs, this long."""

    def change(content: dict) -> None:
        content["runs"] = {name: {"pair": "gfl", **own} for name, own in chosen.items()}
        student = content["pairs"]["gfl"]["student"]
        student["iterations"] = iterations
        student["options"]["train_dataloader.num_workers"] = workers

    return change


def write_tiny_data(root: Path) -> DatasetInfo:
    """The first images of minicoco, written as a COCO-format set."""
    for split in MINICOCO.splits:
        (root / split.name).mkdir()
        annotations = []
        for i in range(IMAGES[split.name]):
            image, instances = render(MINICOCO, split, i)
            assert cv2.imwrite(str(root / split.name / file_name(split, i)), image[..., ::-1])
            annotations.append(annotate(instances, i + 1, 0))
        content = coco_json(MINICOCO, split, annotations)
        (root / f"{split.name}.json").write_text(json.dumps(content))
    return DatasetInfo(
        name="minicoco",
        classes=[c["name"] for c in content["categories"]],
        train_images=str(root / "train"),
        train_annotations=str(root / "train.json"),
        val_images=str(root / "val"),
        val_annotations=str(root / "val.json"),
        areas=list(MINI_AREAS),
        digest="tiny",
    )


def same(a: dict, b: dict) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class World:
    """A folder with params.yaml and a prepared data set; the test's process stands in it."""

    def __init__(self, folder: Path, data: DatasetInfo) -> None:
        self.folder, self.space = folder, Workspace(folder)
        self.describe(data)

    def describe(self, data: DatasetInfo) -> None:
        """Write what `prepare` would have written."""
        self.data = data
        path = self.space.dataset(data.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(data)))

    def settle(self, change: Callable[[dict], None] = lambda content: None) -> Params:
        """Write params.yaml with a change, read it back and plan it."""
        content = light_content()
        change(content)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(content))
        params = load(self.folder / "params.yaml")
        plan(params)
        return params

    def job(self, params: Params, name: str, seed: int | None = None) -> Job:
        """The teacher of the only pair, or a run matched with it."""
        if name == TEACHER:
            return params.teacher(next(iter(params.pairs)))
        match(replace(params, runs={name: params.runs[name]}))
        return params.student(name, seed)

    def train(self, params: Params, name: str, seed: int | None = None) -> Path:
        """Train one run; returns the folder of its results."""
        from benchmark.train import train

        return self.folder / train(self.job(params, name, seed))

    def evaluate(self, params: Params, name: str, seed: int | None = None) -> Record:
        from benchmark.evaluate import evaluate

        return evaluate(self.job(params, name, seed))
