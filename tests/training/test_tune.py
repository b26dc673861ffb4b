"""The search: every method gets the same weights, and trials are trained as runs are, on a part of the training set."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from support.worlds import runs

from benchmark import tune
from benchmark.experiment.settings import SettingsError, load, parse
from benchmark.experiment.workspace import ROOT
from pgd.methods.base import METHODS, settings_of


def test_every_method_gets_the_same_number_of_weights():
    params = load(ROOT / "params.yaml")
    found = tune.weights(sorted(METHODS.module_dict), params, "gfl")
    for method in METHODS.module_dict:
        own = [run for run in found.values() if run.method == method]
        assert len(own) == len(tune.FACTORS)
        assert len({json.dumps(run.settings) for run in own}) == len(own)
        assert all(run.settings.keys() <= settings_of(method).keys() for run in own)
    assert found["inherit"].method == "none"
    assert {run.inherit for run in found.values()} == {"head+neck"}
    carried = {"gamma_ratio": 0.2, "spatial_ratio": 5.2, "topk": 8}
    assert found["pgd_0.00032"].settings == {**carried, "alpha": 0.00032}
    assert found["pgd_0.0012"].settings == {**carried, "alpha": 0.0012, "temperature": 8.0}


def test_the_committed_trials_are_runs():
    params = load(ROOT / "params.yaml")
    trials = tune.named(ROOT / "experiments" / "trials.yaml", params, "gfl")
    assert {run.pair for run in trials.values()} == {"gfl"}
    for run in trials.values():
        assert run.settings.keys() <= settings_of(run.method).keys()


def test_a_misspelt_trial_is_an_error(tmp_path):
    (tmp_path / "t.yaml").write_text("one: {metod: pgd}\n")
    with pytest.raises(SettingsError, match=r"runs\.one\.metod: unknown key"):
        tune.named(tmp_path / "t.yaml", load(ROOT / "params.yaml"), "gfl")


def test_the_parts_are_disjoint(tiny_data, tmp_path):
    parts = tune.split_train(tiny_data, tmp_path)
    train, val = (json.loads(Path(p).read_text()) for p in (parts.train_annotations, parts.val_annotations))
    ids = [{image["id"] for image in part["images"]} for part in (train, val)]
    assert len(ids[0]) == 10
    assert len(ids[1]) == 2
    assert not ids[0] & ids[1]
    for part, own in zip((train, val), ids, strict=True):
        assert {a["image_id"] for a in part["annotations"]} <= own
    assert parts.val_images == tiny_data.train_images, "never val"


def test_of_crowds_the_lines_of_the_held_out_images_are_kept(tiny_data, tmp_path):
    """All of CrowdHuman's lines would count persons on images that no trial is shown."""
    images = json.loads(Path(tiny_data.train_annotations).read_text())["images"]
    ids = [Path(image["file_name"]).stem for image in images]
    (tmp_path / "annotation_train.odgt").write_text("".join(f"{json.dumps({'ID': name})}\n" for name in ids))
    crowd = replace(tiny_data, val_odgt=str(tmp_path / "annotation_val.odgt"))
    parts = tune.split_train(crowd, tmp_path / "parts")
    assert [json.loads(line)["ID"] for line in Path(parts.val_odgt).read_text().splitlines()] == ids[-2:]


def test_rows_of_two_calls_are_kept(tmp_path):
    out = tmp_path / "tuning.csv"
    for name in ("first", "second"):
        tune.add_row(out, row(name, "a"))
    assert [one["trial"] for one in tune.read_rows(out)] == ["first", "second"]


def row(name: str, basis: str, **more) -> dict:
    said = {"pair": "gfl", "trial": name, "settings": "{}", "iterations": 2, "seed": 0, "basis": basis}
    return said | {"AP": 1.0} | more


def test_a_trial_on_another_basis_is_made_anew_in_its_place(tmp_path):
    out = tmp_path / "tuning.csv"
    older = {name: value for name, value in row("older", "").items() if name != "basis"}
    for one in (older, row("first", "a"), row("second", "a")):
        tune.add_row(out, one)
    rows = tune.read_rows(out)
    assert tune.is_done(row("first", "a"), rows)
    assert not tune.is_done(row("first", "b"), rows)
    assert not tune.is_done(row("third", "a"), rows)
    assert tune.is_done(row("older", "b"), rows), "it does not say on which it was made"
    tune.add_row(out, row("first", "b", AP=2.0))
    found = {one["trial"]: (one["basis"], one["AP"]) for one in tune.read_rows(out)}
    assert found == {
        "older": (pytest.approx(float("nan"), nan_ok=True), 1.0),
        "second": ("a", 1.0),
        "first": ("b", 2.0),
    }


@pytest.mark.long
def test_trials_are_trained_once(taught_world, monkeypatch):
    params = taught_world.settle(runs(2, pgd={"method": "pgd", "inherit": "head+neck"}))
    out = Path("results/trials.csv")
    trials = parse({**asdict(params), "seeds": [0]}).runs
    tune.tune(params, trials, "gfl", 2, 1, out)
    first = pd.read_csv(out)
    assert list(first["trial"]) == ["pgd"]
    assert first["AP"].between(0, 100).all()
    more = {**trials, "none": replace(trials["pgd"], method="none")}
    tune.tune(params, more, "gfl", 2, 1, out)
    both = pd.read_csv(out)
    assert list(both["trial"]) == ["pgd", "none"]
    assert both.iloc[0].equals(first.iloc[0])
