"""params.yaml: whatever is wrong with it is said in one line that starts with the file's name."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from benchmark import plan as plan_stage
from benchmark.experiment.cli import run_cli
from benchmark.experiment.config import DatasetInfo, detector_config
from benchmark.experiment.settings import Dataset, Detector, Run, SettingsError, load, parse
from benchmark.experiment.soundness import check_run
from benchmark.experiment.workspace import ROOT, Workspace

R18 = "benchmark/configs/mini/gfl_r18.py"
GOOD = """
datasets: {minicoco: }
pairs:
  gfl:
    dataset: minicoco
    teacher: {config: benchmark/configs/mini/gfl_r34.py, iterations: 3, seed: 1, min_ap: 5}
    student: {config: benchmark/configs/mini/gfl_r18.py}
seeds: [0, 2]
runs:
  student: {pair: gfl}
  plain: {pair: gfl}
  pgd: {pair: gfl, method: pgd, inherit: head+neck, settings: {alpha: 0.1}}
"""


def content_with(path: str, value: object) -> dict:
    """GOOD with one dotted key set."""
    content = yaml.safe_load(GOOD)
    node, (*parents, last) = content, path.split(".")
    for part in parents:
        node = node[part]
    node[last] = value
    return content


def error_of(tmp_path: Path, text: str) -> str:
    """What `load` says about a text; always one line that starts with the file."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path)).removeprefix(":").strip()


def test_good_file(tmp_path):
    (tmp_path / "p.yaml").write_text(GOOD)
    params = load(tmp_path / "p.yaml")
    assert params.seeds == (0, 2)
    assert params.datasets == {"minicoco": Dataset("minicoco")}
    pair = params.pairs["gfl"]
    assert (pair.teacher.seed, pair.teacher.min_ap, pair.teacher.iterations) == (1, 5, 3)
    assert pair.student.options == {}
    assert pair.student.iterations is None
    assert pair.dataset == "minicoco"
    assert params.runs["plain"] == Run(pair="gfl")
    assert not params.runs["plain"].needs_teacher
    assert params.runs["pgd"].settings == {"alpha": 0.1}
    assert params.runs["pgd"].needs_teacher
    assert Run(inherit="head+neck").needs_teacher


def test_anchors_and_merges(tmp_path):
    text = GOOD.replace("settings: {alpha: 0.1}", "settings: &pgd {alpha: 0.1, topk: 8}")
    text += "  more: {pair: gfl, method: pgd, settings: {<<: *pgd, topk: 9}}\n"
    (tmp_path / "p.yaml").write_text(text)
    assert load(tmp_path / "p.yaml").runs["more"].settings == {"alpha": 0.1, "topk": 9}


def test_jobs():
    params = parse(yaml.safe_load(GOOD))
    teacher, student = params.teacher("gfl"), params.student("pgd", 2)
    assert (teacher.name, teacher.label, teacher.seed) == ("teacher-gfl", "teacher-gfl", 1)
    assert (student.name, student.label, student.detector) == ("pgd", "pgd-2", params.pairs["gfl"].student)
    assert params.student("pgd").seed == 0
    with pytest.raises(SettingsError, match="no pair 'atss'; there are: gfl"):
        params.teacher("atss")


def test_pairs_and_data_sets_must_be_named():
    """DVC's stages read them as well, and know no defaults."""
    content = yaml.safe_load(GOOD)
    del content["pairs"]["gfl"]["dataset"]
    with pytest.raises(SettingsError, match=r"^pairs.gfl.dataset: missing; there are: minicoco$"):
        parse(content)
    content = yaml.safe_load(GOOD)
    content["runs"]["plain"] = None
    with pytest.raises(SettingsError, match=r"^runs.plain.pair: missing; there are: gfl$"):
        parse(content)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pairs.gfl.techer", {}, "pairs.gfl.techer: unknown key; did you mean 'teacher'?"),
        ("wholly_other", 1, "wholly_other: unknown key; known keys: datasets, pairs, runs, seeds, watch"),
        ("datasets.minicoco", {"knd": "coco"}, "datasets.minicoco.knd: unknown key; did you mean 'kind'?"),
        ("pairs.gfl.teacher.iteration", 3, "pairs.gfl.teacher.iteration: unknown key; did you mean 'iterations'?"),
        ("pairs.gfl.student.optons", {}, "pairs.gfl.student.optons: unknown key; did you mean 'options'?"),
        (
            "pairs.gfl.student.seed",
            1,
            "pairs.gfl.student.seed: unknown key; known keys: config, iterations, options, gpus, launcher",
        ),
        ("runs.pgd.metod", "pgd", "runs.pgd.metod: unknown key; did you mean 'method'?"),
        (
            "pairs.gfl.teacher.no",
            3,
            "pairs.gfl.teacher.False: unknown key; known keys: config, iterations, options, gpus, launcher, seed, "
            "min_ap, features, checkpoint, sha256",
        ),
        ("no", 3, "False: unknown key; known keys: datasets, pairs, runs, seeds, watch"),
    ],
)
def test_misspelt_keys(tmp_path, key, value, said):
    # `no` is a boolean to YAML.
    text = yaml.safe_dump(content_with(key, value)).replace("'no'", "no")
    assert error_of(tmp_path, text) == said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "pairs.gfl.teacher.iterations",
            "many",
            "pairs.gfl.teacher.iterations: 'many' should be a valid integer",
        ),
        ("pairs.gfl.teacher.iterations", 2.5, "pairs.gfl.teacher.iterations: 2.5 should be a valid integer"),
        ("pairs.gfl.teacher.iterations", True, "pairs.gfl.teacher.iterations: True should be a valid integer"),
        ("pairs.gfl.teacher.min_ap", "5", "pairs.gfl.teacher.min_ap: '5' should be a valid number"),
        ("pairs.gfl.student.config", 5, "pairs.gfl.student.config: 5 should be a valid string"),
        ("pairs.gfl.student.options", [], "pairs.gfl.student.options: [] should be a mapping"),
        ("runs.pgd.settings", None, "runs.pgd.settings: missing"),
        ("runs.pgd", "fast", "runs.pgd: 'fast' should be a mapping"),
        ("pairs.gfl.teacher", [1], "pairs.gfl.teacher: [1] should be a mapping"),
        ("pairs.gfl", [1], "pairs.gfl: [1] should be a mapping"),
        ("pairs.gfl.dataset", "coco", "pairs.gfl.dataset: 'coco' is unknown; did you mean 'minicoco'?"),
        ("runs.pgd.pair", "atss", "runs.pgd.pair: 'atss' is unknown; there are: gfl"),
        ("datasets", ["coco"], "datasets: ['coco'] should be a mapping"),
        ("datasets.minicoco", [1], "datasets.minicoco: [1] should be a mapping"),
        ("runs", ["pgd"], "runs: ['pgd'] should be a mapping"),
        ("seeds", 3, "seeds: 3 should be a list"),
        ("seeds", [], "seeds: [] should not be empty"),
        ("seeds", [0, "1"], "seeds.1: '1' should be a valid integer"),
        ("seeds", [True], "seeds.0: True should be a valid integer"),
        ("seeds", [-1], "seeds.0: -1 should be greater than or equal to 0"),
        ("seeds", [2**32], "seeds.0: 4294967296 should be less than or equal to 4294967295"),
        ("pairs.gfl.teacher.min_ap", 500, "pairs.gfl.teacher.min_ap: 500 should be less than or equal to 100"),
        ("pairs.gfl.teacher.min_ap", -1, "pairs.gfl.teacher.min_ap: -1 should be greater than or equal to 0"),
        ("pairs.gfl.teacher.min_ap", math.nan, "pairs.gfl.teacher.min_ap: nan should be less than or equal to 100"),
        ("seeds", [0, 1, 0], "seeds: [0, 1, 0] names a seed twice"),
        ("runs.a/b", {}, "runs.a/b: a name is text of letters, digits, '_', '.' and '-'"),
        ("runs.teacher-x", {}, "runs.teacher-x: names that start with 'teacher' are the teachers' own"),
        ("runs.pgd.inherit", "all", "runs.pgd.inherit: 'all' should be 'none' or 'head+neck'"),
        ("runs.student.settings", {"a": 1}, "runs.student.settings: method 'none' has no settings"),
        (
            "datasets.voc",
            {},
            "datasets.voc.kind: 'voc' should be 'minicoco', 'midicoco', 'coco', 'minicrowd' or 'crowdhuman'",
        ),
        ("datasets.coco", {}, "datasets.coco.root: give the folder that holds train2017/, val2017/ and annotations/"),
        ("pairs.gfl.student.iterations", 1, "pairs.gfl.student.iterations: 1 should be greater than or equal to 2"),
        (
            "datasets.minicoco",
            {"train_images": -5},
            "datasets.minicoco.train_images: -5 should be greater than or equal to 1",
        ),
    ],
)
def test_wrong_values(tmp_path, key, value, said):
    assert error_of(tmp_path, yaml.safe_dump(content_with(key, value))) == said


MUST = ["datasets", "pairs", "runs", *(f"pairs.gfl.{k}" for k in ("teacher", "student", "teacher.config"))]


@pytest.mark.parametrize("key", MUST)
@pytest.mark.parametrize("way", ["absent", "empty"])
def test_missing(tmp_path, key, way):
    content = content_with("pairs.gfl.teacher.iterations", 5)
    node, (*parents, last) = content, key.split(".")
    for part in parents:
        node = node[part]
    node[last] = None
    if way == "absent":
        del node[last]
    assert error_of(tmp_path, yaml.safe_dump(content)) == f"{key}: missing"


def test_a_number_is_no_name(tmp_path):
    text = yaml.safe_dump(content_with("runs.7x", {})).replace("7x", "7")
    assert error_of(tmp_path, text) == "runs.7: a name is text of letters, digits, '_', '.' and '-'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs:\n  a: {}\n b: {}\n", "line 3: not valid YAML (did not find expected <document start>"),
        ("seeds: [0, 1\nruns: {}\n", "line 2: not valid YAML (expected ',' or ']'"),
        ("teacher: {config: a: b}\n", "line 1: not valid YAML"),
        ("seeds: [0]\nruns: {a: {}, a: {}}\n", "line 2: the key 'a' stands twice; delete one"),
        ("seeds: [0]\nruns: {}\nseeds: [1]\n", "line 3: the key 'seeds' stands twice; delete one"),
        ("seeds: [0]\n? [runs]\n: {}\n", "line 2: a key is a name, not a list or a mapping"),
        ("? {runs: 1}\n: {}\n", "line 1: a key is a name, not a list or a mapping"),
        ("runs: \0\n", "not valid YAML (unacceptable character #x0000: special characters are not allowed)"),
        ("[" * 5000, "not valid YAML (maximum recursion depth exceeded"),
        ("- 1\n", "expected a mapping at the top"),
        ("", "expected a mapping at the top"),
    ],
)
def test_files_that_are_no_settings(tmp_path, text, said):
    got = error_of(tmp_path, text)
    assert got.startswith(said.split(" (")[0])
    assert got.count("line") <= 1


@pytest.mark.parametrize("data", ["# größe\n".encode("latin-1"), GOOD.encode("utf-16")], ids=["latin-1", "utf-16"])
def test_files_of_another_encoding(tmp_path, data):
    (tmp_path / "params.yaml").write_bytes(GOOD.encode() + data)
    with pytest.raises(SettingsError, match=r"params\.yaml: not valid YAML \('utf-8' codec can't decode byte .*\)$"):
        load(tmp_path / "params.yaml")


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path):
    (tmp_path / "params.yaml").write_text(GOOD, encoding="utf-8-sig")
    assert load(tmp_path / "params.yaml") == parse(yaml.safe_load(GOOD))


@pytest.mark.parametrize("tag", ["object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir", "module:os"])
def test_tags_that_make_python_objects_are_refused(tmp_path, tag):
    text = f"{GOOD}x: !!python/{tag} [{str(tmp_path / 'made')!r}]\n"
    assert "not valid YAML (could not determine a constructor for the tag" in error_of(tmp_path, text)
    assert not (tmp_path / "made").exists()


def test_missing_file(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.yaml: no such file; run this from"):
        load(tmp_path / "gone.yaml")


@pytest.mark.filterwarnings("ignore:DeprecationWarning")
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (Run("pdg"), "runs.x: no distillation method 'pdg'; did you mean 'pgd'?"),
        (Run("pgd", settings={"alfa": 1}), "runs.x: settings.alfa: unknown to method 'pgd'; did you mean 'alpha'?"),
        (
            Run("pgd", settings={"alpha": "1e-3"}),
            "runs.x: settings.alpha: '1e-3' should be a number, as 0.04 is (YAML takes 1e-3 for text, write 1.0e-3)",
        ),
        (Run("pgd", settings={"adapter": "no"}), "runs.x: settings.adapter: 'no' should be true or false, as False is"),
        (
            Run(options={"train_dataloader.batch_size": "16"}),
            f"runs.x: {R18}: options.train_dataloader.batch_size: '16' should be a number, as 8 is",
        ),
        (
            Run(options={"model.neck.out_chanels": 3}),
            f"runs.x: {R18}: options.model.neck.out_chanels: "
            "model.neck has no 'out_chanels'; did you mean 'out_channels'?",
        ),
        (
            Run(options={"modle.neck": 3}),
            f"runs.x: {R18}: options.modle.neck: the config has no 'modle'; did you mean 'model'?",
        ),
        (
            Run(options={"param_scheduler.2.end": 3}),
            f"runs.x: {R18}: options.param_scheduler.2.end: param_scheduler has no '2'; it has: 0, 1",
        ),
        # what only the method itself can tell
        (Run(method="pgd", settings={"mask": "other"}), "runs.x: pgd: no mask 'other'; there are: "),
        (Run(method="pgd", settings={"level_weights": [1.0]}), "runs.x: pgd: level_weights has 1 entries for 5 levels"),
        (Run(method="fkd", settings={"temperature": 0.0}), "runs.x: fkd: temperature 0.0 must be above 0"),
        (
            Run(options={"train_dataloader.batch_size.x": 3}),
            f"runs.x: {R18}: options.train_dataloader.batch_size.x: train_dataloader.batch_size has no 'x'",
        ),
    ],
)
def test_unknown_method_setting_and_option(run, said):
    params = parse(yaml.safe_load(GOOD))
    params.runs["x"] = replace(run, pair="gfl")
    with pytest.raises(SettingsError) as caught:
        check_run("x", params)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_config_file_that_is_not_there():
    with pytest.raises(SettingsError, match=r"^benchmark/configs/nope\.py: no such config file"):
        detector_config(Detector("benchmark/configs/nope.py"))


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
def test_a_config_that_mmdet_ships():
    shipped = "mmdet::gfl/gfl_r50_fpn_1x_coco.py"
    cfg = detector_config(Detector(shipped, options={"model.backbone.frozen_stages": 2}))
    assert cfg.model.type == "GFL"
    assert cfg.model.backbone.frozen_stages == 2
    with pytest.raises(SettingsError, match=r"^mmdet::gfl/nope\.py: mmdet ships no such config"):
        detector_config(Detector("mmdet::gfl/nope.py"))


def test_data_that_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"mine/dataset\.json: not there; run `dvc repro prepare@mine`"):
        DatasetInfo.load("mine")


def misspelt(tmp_path: Path) -> None:
    """A settings file with a mistake, and a data set that is prepared."""
    info = DatasetInfo("minicoco", [], "", "", "", "", [], "")
    path = Workspace(tmp_path).dataset("minicoco")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(info)))
    (tmp_path / "params.yaml").write_text(
        GOOD.replace("alpha", "alhpa")
        .replace("gfl_r18.py}", "gfl_r18.py, options: {model.backbone.init_cfg: }}")
        .replace("min_ap: 5}", "options: {model.backbone.init_cfg: }}")
    )


def test_plan_ends_in_one_line(tmp_path, monkeypatch, capsys):
    misspelt(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plan"])
    with pytest.raises(SystemExit) as caught:
        run_cli(plan_stage.main, SettingsError)
    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    said = "settings.alhpa: unknown to method 'pgd'; did you mean 'alpha'?"
    assert lines[0] == f"error: params.yaml: runs.pgd: {said}"
    assert not (tmp_path / "work" / "plan").exists()


@pytest.mark.slow
def test_plan_as_a_command(tmp_path):
    misspelt(tmp_path)
    command = [sys.executable, "-W", "ignore", "-m", "benchmark.plan"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: params.yaml: ")]
    assert len(ended.stderr.splitlines()) == 1


def test_unexpected_errors_keep_their_traceback():
    with pytest.raises(KeyError):
        run_cli(lambda: {}["gone"], SettingsError)
