"""Whoever names what is not there is told the nearest name, by every command that takes names."""

from __future__ import annotations

import sys

import pytest

from benchmark import check, launch, tune
from benchmark.experiment.cli import command_parser
from benchmark.experiment.names import hint, unknown, wrong_kind
from benchmark.experiment.settings import SettingsError, load
from benchmark.experiment.workspace import ROOT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pdg", "did you mean 'pgd'?"),
        ("fitnett", "did you mean 'fitnet'?"),
        ("yolo", "there are: fitnet, pgd"),
        ("", "there are: fitnet, pgd"),
    ],
)
def test_hint(name, said):
    assert hint(name, ["fitnet", "pgd"]) == said


def test_letters_that_changed_places_are_nearest():
    assert hint("pdg", ["pkd", "pgd"]) == "did you mean 'pgd'?"


def test_nothing_is_there():
    assert hint("pgd", [], "it has") == "it has: none"


def test_unknown():
    assert unknown("run", "pdg", ["pgd"]) == "no run 'pdg'; did you mean 'pgd'?"


@pytest.mark.parametrize(
    ("value", "own", "said"),
    [
        ("1e-3", 0.01, "'1e-3' should be a number, as 0.01 is (YAML takes 1e-3 for text, write 1.0e-3)"),
        (True, 4, "True should be a number, as 4 is"),
        ("false", True, "'false' should be true or false, as True is"),
        (0, False, "0 should be true or false, as False is"),
        (3, "mean", "3 should be text, as 'mean' is"),
        (1, 0.5, None),
        (None, 0.5, None),
        ("a", None, None),
        ([1, 2], 3, None),
        (3, {"type": "SGD"}, None),
    ],
)
def test_values_of_another_kind(value, own, said):
    assert wrong_kind(value, own) == said


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda params: params.student("pgd_publishd"), "no run 'pgd_publishd'; did you mean 'pgd_published'?"),
        (lambda params: params.teacher("glf"), "no pair 'glf'; did you mean 'gfl'?"),
        (lambda params: params.dataset("minicocco"), "no data set 'minicocco'; did you mean 'minicoco'?"),
    ],
)
def test_runs_pairs_and_data_sets(ask, said):
    with pytest.raises(SettingsError) as caught:
        ask(load(ROOT / "params.yaml"))
    assert str(caught.value) == said


def test_notebooks(capsys):
    with pytest.raises(SystemExit) as stop:
        command_parser("notebooks").parse_args(["key_regionz"])
    assert stop.value.code == 2
    assert "no notebook 'key_regionz'; did you mean '" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fitnett"], "no method 'fitnett'; did you mean 'fitnet'?"),
        (["fitnet", "yolo"], "no method 'yolo'; there are: acamkd, "),
        (["fitnet", "--pair", "glf"], "no pair 'glf'; did you mean 'gfl'?"),
        (["--trials", "gone.yaml"], "gone.yaml: no such file"),
    ],
)
def test_tune(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(sys, "argv", ["tune", "--params", str(ROOT / "params.yaml"), *arguments])
    try:
        tune.main()
    except SettingsError as error:
        told = str(error)
    except SystemExit:
        told = capsys.readouterr().err
    assert said in told


# ------------------------------------------------------------- what DVC would say nothing useful of


def test_check_says_what_a_file_asks_for(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check", "--params", str(ROOT / "params.yaml")])
    check.main()
    assert capsys.readouterr().out.endswith(": 1 data set, 1 teacher, 9 students (9 runs x 1 seed)\n")


@pytest.mark.parametrize("command", [check, launch])
def test_seeds_that_are_no_list(tmp_path, monkeypatch, command):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seeds: [0]", "seeds: 0"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["it"])
    with pytest.raises(SettingsError, match=r"^params\.yaml: seeds: 0 should be a list$"):
        command.main()
