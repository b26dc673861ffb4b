"""The verdict on reference figures: by hand, against a commit, from a DVC diff, and where the page shows it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.report_tree import build, load, run_report, write_json

from benchmark import report, verdict


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    """Results of which no figure is drawn, which takes longer than all else."""
    monkeypatch.setattr(report, "figures", lambda *_: {})
    build(tmp_path)
    return tmp_path


def test_verdict(tree):
    records, reference = load(tree), {"pgd-0": 30.0, "pgd-1": 29.5}
    passed, text = verdict.verdict(records, {"tolerance_ap": 3.0, "AP": reference})
    assert passed
    assert "all 2 runs lie within ±3 AP" in text
    assert "\u22123.00, pgd-0" in text
    passed, text = verdict.verdict(records, {"tolerance_ap": 2.9, "AP": {**reference, "gone-0": 1.0}})
    assert not passed
    assert "outside: pgd-0" in text
    assert "missing: gone-0" in text
    assert verdict.verdict(records, {"AP": {}})[0] is False
    assert verdict.verdict(records, None)[0] is None


@pytest.mark.slow
def test_figures_are_not_compared_with_themselves(tree, capsys):
    records = load(tree)
    own = dict(zip(records["key"], records["AP"], strict=True))
    passed, text = verdict.verdict(records, {"AP": own})
    assert passed is None
    assert "nothing to compare" in text
    assert verdict.verdict(records, {"AP": own | {"pgd-0": own["pgd-0"] + 0.01}})[0]
    write_json(tree / "results" / "expected.json", {"AP": own})
    run_report(tree)
    assert 'class="verdict' not in (tree / "results" / "report.html").read_text()


def dated(tree: Path) -> None:
    """Records that tell the day of their code."""
    for path in (tree / "results" / "runs").iterdir():
        path.write_text(path.read_text().replace('"code_date": null', '"code_date": "2026-01-31"'))


@pytest.mark.slow
def test_report_shows_the_verdict_with_both_machines(tree, capsys):
    dated(tree)
    for ap, word in ((27.5, "Reproduced"), (37.5, "Not reproduced")):
        write_json(tree / "results" / "expected.json", {"tolerance_ap": 1.0, "made": "a slow one", "AP": {"pgd-0": ap}})
        run_report(tree)
        assert word in capsys.readouterr().out
        assert (tree / "results" / "verdict.md").read_text().startswith(word)
        page = (tree / "results" / "report.html").read_text()
        assert f">{word}" in page
        assert "The committed ones: a slow one; these: a &lt;fast&gt; one, code of 2026-01-31." in page


@pytest.mark.parametrize("known", ["these", "the committed"])
def test_a_page_compares_no_figures_of_unknown_machines(tree, known):
    if known == "these":
        dated(tree)
    made = {"made": "a slow one"} if known != "these" else {}
    write_json(tree / "results" / "expected.json", {"AP": {"pgd-0": 27.5}} | made)
    run_report(tree)
    assert "Reproduced" not in (tree / "results" / "report.html").read_text()
    assert (tree / "results" / "verdict.md").read_text().startswith("Reproduced")


def test_a_reference_says_what_it_was_made_on(tree, capsys):
    run_report(tree)
    expected = tree / "results" / "expected.json"
    assert verdict.main(["--results", str(tree / "results"), "--accept"]) == 0
    assert "made" not in json.loads(expected.read_text()), "unknown"
    dated(tree)
    assert verdict.main(["--results", str(tree / "results"), "--accept"]) == 0
    assert json.loads(expected.read_text())["made"] == "a <fast> one, code of 2026-01-31"
    assert json.loads(expected.read_text())["AP"]["pgd-1"] == 29


def test_verdict_against_the_last_commit(tmp_path, capsys):
    arguments, metrics = ["--results", str(tmp_path)], tmp_path / "metrics.json"
    write_json(metrics, {"pgd-0": {"AP": 27.0}, "pgd-1": {"AP": 29.0}})
    write_json(tmp_path / "expected.json", {"tolerance_ap": 2.0})
    assert verdict.main(arguments) == 1
    assert "no committed" in capsys.readouterr().err
    commit = ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"]
    for command in (["init", "-q"], ["add", "."], commit):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    write_json(metrics, {"pgd-0": {"AP": 26.0}, "pgd-1": {"AP": 29.0}})
    assert verdict.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "reproduced: yes (tolerance ±2 AP)"
    assert verdict.main([*arguments, "--tolerance", "0.5"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "reproduced: no (tolerance ±0.5 AP)"


def test_verdict_from_a_dvc_diff(tmp_path, capsys):
    changes = {"a-0.AP": {"old": 30, "new": 31, "diff": 1}, "new-0.AP": {"old": None, "new": 5}}
    changes["a-0.AP50"] = {"old": 1, "new": 90, "diff": 89}
    write_json(tmp_path / "diff.json", {"results/metrics.json": changes})
    arguments = ["--results", str(tmp_path), "--from-diff", str(tmp_path / "diff.json")]
    assert verdict.main(arguments) == 0
    write_json(tmp_path / "diff.json", {"results/metrics.json": {"b-0.AP": {"old": 30, "new": None}}})
    assert verdict.main(arguments) == 1
    assert "missing: b-0" in capsys.readouterr().out
    write_json(tmp_path / "diff.json", {})  # what DVC prints when nothing changed, or when there is nothing
    assert verdict.main(arguments) == 1
    write_json(tmp_path / "metrics.json", {"a-0": {"AP": 30}})
    assert verdict.main(arguments) == 0
    write_json(tmp_path / "diff.json", [1])
    assert verdict.main(arguments) == 1
    assert "dvc metrics diff" in capsys.readouterr().err
