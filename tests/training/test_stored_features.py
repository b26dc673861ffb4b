"""A teacher's features, stored or looked at anew: the same student, and what a precision and other batches change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.worlds import runs, same

from benchmark.experiment.workspace import HERE
from pgd.checkpoint import load_state

pytestmark = pytest.mark.slow
PGD = {"method": "pgd", "inherit": "head+neck"}


def kept(features: str, **chosen: dict):
    """Four steps with the teacher's features kept in one of the ways."""

    def change(content: dict) -> None:
        runs(4, **(chosen or {"pgd": PGD}))(content)
        content["pairs"]["gfl"]["teacher"]["features"] = features

    return change


def stores() -> list[Path]:
    """Folders of features that are whole."""
    return sorted(path.parent for path in HERE.features("gfl").glob("*/key"))


def student(world, features: str) -> dict[str, torch.Tensor]:
    return load_state(world.train(world.settle(kept(features)), "pgd") / "weights.pth")


def test_a_student_is_the_same_with_stored_features(taught_world):
    live = student(taught_world, "live")
    assert stores() == []
    assert same(student(taught_world, "auto"), live)
    assert len(stores()) == 1


def test_half_precision_is_another_training_and_nearly_the_same(taught_world):
    planned, recorded, found = {}, {}, {}
    for features in ("live", "float16"):
        found[features] = student(taught_world, features)
        planned[features] = json.loads(HERE.matched("pgd").read_text())["plan"]["features"]
        recorded[features] = json.loads((HERE.work / "runs" / "pgd-0" / "train.json").read_text())["teacher_features"]
    assert planned == {"live": None, "float16": "float16"}
    assert recorded == {"live": "live", "float16": "float16"}
    assert not same(found["float16"], found["live"])
    moved = {name: (found["float16"][name] - value).float().norm() for name, value in found["live"].items()}
    assert all(moved[name] <= 1e-2 * value.float().norm() + 1e-2 for name, value in found["live"].items())


@pytest.mark.long
def test_students_with_other_batches_do_not_share_a_store(taught_world):
    """Side by side one of them would store over what the other reads."""
    small = PGD | {"options": {"train_dataloader.batch_size": 3}}
    params = taught_world.settle(kept("auto", pgd=PGD, small=small, again=PGD | {"settings": {"alpha": 1.0}}))
    for run, count in {"pgd": 1, "small": 2, "again": 2}.items():
        taught_world.train(params, run)
        assert len(stores()) == count, run
