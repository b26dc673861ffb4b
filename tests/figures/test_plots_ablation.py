"""Which runs are changes of which, and the figure of what they gain."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from benchmark.evidence.record import METRICS, ReportError
from benchmark.evidence.records import FOOTING, aggregate
from benchmark.figures import ablation as plots_ablation
from benchmark.figures.ablation import ablation, variants

#: settings and AP by run; the student without a method has 20
RUNS = {
    "k20": ({"alpha": 0.5, "topk": 20, "mask": "pgw"}, 21.0),
    "box": ({"alpha": 0.5, "topk": 8, "mask": "box"}, 19.0),
    "base": ({"alpha": 0.5, "topk": 8, "mask": "pgw"}, 22.0),
    "k3": ({"alpha": 0.5, "topk": 3, "mask": "pgw"}, 23.0),
    "plain": ({"alpha": 0.1, "topk": 8, "mask": "pgw"}, 20.5),
    "xis": ({"alpha": 0.5, "topk": 8, "mask": "pgw", "xi_cls": 0.0, "xi_reg": 0.0}, 24.0),
}


def records(runs: dict = RUNS, method: str = "pgd") -> pd.DataFrame:
    """Made-up records on one footing."""
    common = {**dict.fromkeys(FOOTING, "same"), "seed": 0, "metric": "coco", "train_seconds": 60.0, "resumed": False}
    common |= {"method_title": method, "method_place": "key regions"}
    common |= dict.fromkeys(("peak_memory_mb", "parameters", "extra_parameters", *METRICS["coco"]), 1.0)
    rows = [{"run": "none", "role": "student", "method": "none", "AP": 20.0}]
    for run, (settings, ap) in runs.items():
        named = {f"method.{key}": value for key, value in settings.items()}
        rows.append({"run": run, "role": "student", "method": method, "AP": ap, **named})
    return pd.DataFrame([{**common, **row} for row in rows])


def test_each_run_is_a_change_of_the_one_that_is_nearest_to_all():
    found = variants(records())
    assert set(found["base"]) == {"base"}
    assert "base" not in set(found["run"])
    rows = {row["run"]: (row["setting"], row["value"]) for _, row in found.iterrows()}
    assert rows == {
        "k3": ("topk", [3]),
        "k20": ("topk", [20]),
        "box": ("mask", ["box"]),
        "plain": ("alpha", [0.1]),
        "xis": ("xi_cls, xi_reg", [0.0, 0.0]),
    }
    assert [run for run in found["run"] if run.startswith("k")] == ["k3", "k20"], "numbers are in their order"


def test_a_setting_can_be_a_list():
    runs = {"none": ({}, 21.0), "one": ({"faults": ["B1"]}, 20.0), "two": ({"faults": ["B1", "B4"]}, 19.0)}
    found = variants(records(runs, "pgd_released"))
    assert found["base"].tolist() == ["none", "none"]
    assert found["value"].tolist() == [[["B1"]], [["B1", "B4"]]]


def test_two_runs_or_others_of_other_methods_are_no_ablation():
    two = {name: RUNS[name] for name in ("base", "box")}
    assert variants(records(two)).empty
    assert variants(pd.concat([records(two), records({"fgd": RUNS["k3"]}, "fgd")])).empty


def test_the_folder_with_changes_of_a_setting_is_found(monkeypatch, tmp_path):
    two = {name: RUNS[name] for name in ("base", "box")}
    there = {
        tmp_path / "few": records(two),
        tmp_path / "other": records(RUNS | {"box": ({"topk": 9, "mask": "pgw"}, 20.0)}),
    }
    there[tmp_path / "all"] = records()

    def load(folder, params):
        if folder not in there:
            raise ReportError("nothing there")
        return there[folder], f"Not run yet in {folder.name}."

    monkeypatch.setattr(plots_ablation, "records_there", load)
    folders = [tmp_path / name for name in ("none", "few", "other", "all")]
    folder, _, lacking = plots_ablation.find(folders, "mask")
    assert folder == tmp_path / "all"
    assert lacking == "Not run yet in all."
    with pytest.raises(ReportError, match=r"no runs that differ in 'mask' in .*few"):
        plots_ablation.find(folders[:3], "mask")


def test_every_change_is_drawn_at_its_gain():
    own = records()
    table = aggregate(own)
    table[["gain_low", "gain_high"]] = table[["gain", "gain"]].to_numpy() + [-0.5, 0.5]
    axes = ablation(own, table).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    dots = [c.get_offsets()[0] for c in axes.collections if isinstance(c, PathCollection)]
    gains = {names[round(y)]: x for x, y in dots}
    assert names[0] == "base"
    assert gains == pytest.approx(
        {"base": 2, "topk = 3": 3, "topk = 20": 1, "mask = box": -1, "alpha = 0.1": 0.5, "xi_cls, xi_reg = 0": 4}
    )
