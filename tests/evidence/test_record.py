"""What a record holds, and that the figures need nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import fields

import pytest
from support.report_tree import record, write_json, write_run

from benchmark.evidence.record import Record, ReportError
from benchmark.experiment.workspace import ROOT
from benchmark.training import usage


@pytest.mark.parametrize(("installed", "found"), [("mmcv", "9.1"), ("mmcv-lite", "9.1"), ("other", None)])
def test_either_package_serves_mmcv(monkeypatch, installed, found):
    def version(name: str) -> str:
        if name != installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert usage.version("mmcv") == found


@pytest.mark.parametrize("name", [*usage.LIBRARIES, "python", "platform", "cpu", "threads"])
def test_library_and_hardware_are_named(name):
    assert usage.machine()[name]


def test_what_is_written_is_read(tmp_path):
    written = Record(**record("pgd", 1, "pgd", "head+neck", 27.0))
    written.write(tmp_path / "runs" / "pgd-1.json")
    assert Record.read(tmp_path / "runs" / "pgd-1.json") == written


def test_what_was_left_out_of_the_data_stays_with_the_figures(tmp_path):
    left_out = {"train": {"truncated images": 2, "annotations of images that were left out": 7}}
    Record(**record("pgd", 1, "pgd", "none", 27.0) | {"left_out": left_out}).write(tmp_path / "pgd-1.json")
    assert Record.read(tmp_path / "pgd-1.json").left_out == left_out


def test_a_record_from_before_there_was_ap_by_class_is_read(tmp_path):
    content = {k: v for k, v in record("pgd", 1, "pgd", "none", 27.0).items() if k not in ("class_ap", "code_date")}
    write_json(tmp_path / "pgd-1.json", content)
    found = Record.read(tmp_path / "pgd-1.json")
    assert (found.class_ap, found.code_date) == ({}, None)


def test_a_row_is_flat():
    row = Record(**record("pgd", 1, "pgd", "head+neck", 27.0) | {"class_ap": {"fish": 30.0, "vase": None}}).row()
    assert (row["class.fish"], row["class.vase"]) == (30.0, None)
    assert row["key"] == "pgd-1"
    assert (row["AP"], row["method.topk"], row["environment.torch"], row["options"]) == (27.0, 9, "2.0", "")
    assert not any(isinstance(value, dict) for value in row.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "no record of version 2"),
        ({"version": None}, "no record of version 2"),
        ({"iterations": ...}, "has no 'iterations'"),
        ({"guess": 1}, "an entry 'guess', which records do not have"),
        ({"metric": "voc"}, "has the metric 'voc', not one of coco, crowdhuman"),
        ({"accuracy": {"AP": 1.0}}, "has no 'AP50'"),
        ({"seed": 3}, "holds another record, pgd-3"),
    ],
)
def test_bad_records_are_refused(tmp_path, change, words):
    content = {k: v for k, v in (record("pgd", 0, "pgd", "none", 27.0) | change).items() if v is not ...}
    write_json(tmp_path / "pgd-0.json", content)
    with pytest.raises(ReportError, match=words):
        Record.read(tmp_path / "pgd-0.json")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_record_without_ap_is_refused(tmp_path, value):
    content = record("pgd", 0, "pgd", "none", 27.0)
    content["accuracy"]["AP"] = value
    write_run(tmp_path, content | {"accuracy": content["accuracy"] | {"AP": 1.0}})
    write_json(tmp_path / "pgd-0.json", content)
    with pytest.raises(ReportError, match="has no AP"):
        Record.read(tmp_path / "pgd-0.json")


#: entries that records may lack which were written before there were these
LATER = {"left_out", "pretrained_tensors", "pretrained_absent", "class_ap", "code_date", "teacher_features"}
COMMITTED = sorted(ROOT.glob("results/runs/*.json")) + sorted(ROOT.glob("experiments/*/results/runs/*.json"))


def test_committed_records_hold_all_settings_of_their_method():
    from pgd.methods.base import settings_of

    names = {f.name for f in fields(Record)} - LATER
    assert COMMITTED
    for path in COMMITTED:
        found = Record.read(path)
        assert set(json.loads(path.read_text())) - LATER == names, path
        if found.method != "none":
            assert set(found.settings) == set(settings_of(found.method)), path


@pytest.mark.slow
def test_tables_and_figures_need_neither_mmdet_nor_torch():
    modules = ["evidence.records", "evidence.tables", "figures.ablation", "figures.cost", "figures.dynamics"]
    modules += ["figures.plots", "figures.samples", "report", "region_figures", "verdict"]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module('benchmark.' + name)\n"
    code += "print([name for name in ('torch', 'mmdet', 'mmengine') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
