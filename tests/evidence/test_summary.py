"""The few figures for `dvc metrics`, on a table known by hand, and the template of `dvc plots`."""

from __future__ import annotations

import json
import re
import sys

import pandas as pd
import pytest
import yaml
from dvc.config import Config

from benchmark import summary as stage
from benchmark.evidence.record import ReportError
from benchmark.experiment.workspace import ROOT

ROWS = [
    ("teacher-gfl", "teacher", "none", "gfl", "none", 33.0, None),
    ("student", "student", "none", "gfl", "none", 20.0, None),
    ("inherit", "student", "none", "gfl", "head+neck", 26.5, None),
    ("pgd_published", "student", "pgd", "gfl", "head+neck", 27.0, 0.5),
    ("pgd", "student", "pgd", "gfl", "head+neck", 26.7, 0.2),
    ("teacher-fcos", "teacher", "none", "fcos", "none", 30.0, None),
    ("fcos-pgd", "student", "pgd", "fcos", "none", 25.12345, None),
]
TABLE = pd.DataFrame(ROWS, columns=["run", "role", "method", "pair", "inherit", "AP", "gain"])


def test_summary():
    assert stage.summary(TABLE) == {
        "gfl": {"teacher": 33.0, "student": 20.0, "inherit": 26.5, "pgd": 26.7, "gain": 0.2},
        "fcos": {"teacher": 30.0, "pgd": 25.123},
    }


def test_the_stage(tmp_path, monkeypatch, capsys):
    TABLE.to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["summary", "--results", str(tmp_path)])
    stage.main()
    assert json.loads((tmp_path / "summary.json").read_text()) == stage.summary(TABLE)
    assert json.loads(capsys.readouterr().out) == stage.summary(TABLE)


def test_without_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["summary", "--results", str(tmp_path)])
    with pytest.raises(ReportError, match=r"table\.csv is missing; `dvc repro report` writes it"):
        stage.main()


def test_what_dvc_shows_is_there():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    plots = [one if isinstance(one, str) else next(iter(one)) for one in content["plots"]]
    for path in (*content["metrics"], *plots):
        assert (ROOT / path).is_file(), path


def test_the_template_draws_runs_by_name_the_best_on_top():
    """DVC's own templates take every y for a number, and a run is none."""
    text = (ROOT / ".dvc" / "plots" / "by_run.json").read_text()
    assert '"<DVC_METRIC_DATA>"' in text
    y = json.loads(text)["encoding"]["y"]
    assert (y["field"], y["type"]) == ("run", "nominal")
    assert y["sort"] == {"field": "AP", "op": "mean", "order": "descending"}


def test_the_page_of_plots_finds_vega_on_this_machine():
    """From the root and from an experiment's folder, whose page is `dvc_plots/index.html`."""
    page = Config(str(ROOT / ".dvc"))["plots"]["html_template"]
    text = (ROOT / ".dvc" / page).read_text()
    assert "{plot_divs}" in text
    found = re.findall(r'<script src="(.+?)">', text)
    assert text.index("{scripts}") > text.index(found[-1]), "with a network DVC's own are the ones that count"
    made = re.search(r"> (\S+vega\.js)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1)
    for folder, source in zip((ROOT, ROOT / "experiments" / "study"), found, strict=True):
        assert (folder / "dvc_plots" / source).resolve() == ROOT / made
