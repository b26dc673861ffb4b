"""Every experiment is the root's pipeline on other settings, and DVC itself reads them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import yaml
from support.marks import long_but

from benchmark.experiment.settings import load
from benchmark.experiment.soundness import check_models
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.smoke import PROFILE, SmokeError, check, expected_files, left_out

FILES = {"root": ROOT} | {path.parent.name: path.parent for path in sorted(ROOT.glob("experiments/*/params.yaml"))}


STAGES = ["closures", "check", "look", "prepare", "plan", "teacher", "evaluate_teacher", "match", "distill", "evaluate"]
STAGES += ["cost", "key_regions", "region_figures", "report", "summary", "notebooks"]
PAIRWISE = ("plan", "teacher", "evaluate_teacher", "key_regions")


@pytest.mark.parametrize("profile", list(FILES)[1:])
def test_an_experiments_pipeline_is_the_roots(profile):
    ours, theirs = (ROOT / "dvc.yaml").read_text(), (FILES[profile] / "dvc.yaml").read_text()
    stages, metrics = ours.split("\n# What `dvc metrics`")
    # `dvc exp show` and `dvc params diff` read earlier commits, where git has but the name that a link points to
    assert not (FILES[profile] / "dvc.yaml").is_symlink(), "a link: make pipelines"
    assert theirs.replace("repo: ../..", "repo: .") == stages
    assert "metrics:" in metrics


@pytest.mark.parametrize("profile", FILES)
def test_shared_dependencies_are_there(profile):
    """They are reached through `repo`, and nothing else of the repository is a dependency."""
    content = yaml.safe_load((FILES[profile] / "dvc.yaml").read_text())
    repo = content["vars"][0]["repo"]
    for stage in content["stages"].values():
        for dependency in stage.get("do", stage)["deps"]:
            shared = dependency.startswith("${repo}/")
            assert shared != (dependency.split("/")[0] in ("work", "results")), dependency
            path = FILES[profile] / dependency.replace("${repo}", repo)
            # data comes by `dvc pull`
            assert not shared or path.exists() or dependency.startswith("${repo}/data"), dependency


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:DeprecationWarning")
@pytest.mark.parametrize("profile", long_but("paper".__ne__, FILES))
def test_params_are_sound(profile):
    params = load(FILES[profile] / "params.yaml")
    kinds = {"paper": {"coco", "crowdhuman"}, "crowd": {"minicrowd"}, "real": {"coco"}}
    kinds |= {name: {"minicoco", "minicrowd"} for name in ("smoke",)} | {"study": {"midicoco"}}
    assert {data.kind for data in params.datasets.values()} == kinds.get(profile, {"minicoco"})
    assert params.seeds[0] == 0
    check_models(params)
    plain = [run for run in params.runs.values() if run.method == "none"]
    baselines = {"head+neck"} if profile in ("deviations", "regions") else {"none", "head+neck"}
    assert {run.inherit for run in plain} == baselines, "each row has what it is compared with"


def test_every_method_and_head_takes_part_in_the_smoke_run():
    params = load(PROFILE.params)
    assert left_out(params) == []
    for pair in params.pairs.values():
        assert pair.teacher.iterations <= 10
        assert pair.student.iterations <= 10
    for data in params.datasets.values():
        assert data.train_images <= 100
        assert data.val_images <= 100


@pytest.mark.parametrize("profile", FILES)
def test_commands_name_modules_that_are_there(profile):
    stages = yaml.safe_load((FILES[profile] / "dvc.yaml").read_text())["stages"]
    assert list(stages) == STAGES
    for stage in stages.values():
        python, flag, module = stage.get("do", stage)["cmd"].split()[:3]
        assert (python, flag) == ("python", "-m")
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_smoke_check(tmp_path):
    """The check names what is missing."""
    params = load(PROFILE.params)
    space = Workspace(tmp_path)
    files = expected_files(params, space)
    assert tmp_path / "work/runs/pgd-0/weights.pth" in files
    assert tmp_path / "results/runs/teacher-gfl.json" in files
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    check(params, space)
    (tmp_path / "results/table.csv").write_text("")
    with pytest.raises(SmokeError, match=r"results/table\.csv: a stage ended well but did not write it"):
        check(params, space)
    pairs = {name: pair for name, pair in params.pairs.items() if name != "vfnet"}
    with pytest.raises(SmokeError, match=r"params\.yaml: no pair with a VFNetHead; add one"):
        check(replace(params, pairs=pairs), space)


@pytest.fixture(scope="module")
def stage_names() -> dict[str, set[str]]:
    """Names of the stages that DVC finds, by folder."""
    if not (ROOT / ".dvc").is_dir():
        pytest.skip("no .dvc folder: not a checkout of the repository")
    from dvc.repo import Repo

    names: dict[str, set[str]] = {}
    with Repo(str(ROOT)) as repo:
        for stage in repo.index.stages:
            if hasattr(stage, "name"):
                names.setdefault(stage.path_in_repo.rpartition("dvc.yaml")[0], set()).add(stage.name)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("profile", FILES)
def test_dvc_reads_the_pipeline(stage_names, profile):
    folder = FILES[profile]
    params = load(folder / "params.yaml")
    expected = {"closures", "check", "cost", "region_figures", "report", "summary", "notebooks"}
    expected |= {f"{stage}@{name}" for stage in ("look", "prepare") for name in params.datasets}
    expected |= {f"{stage}@{name}" for stage in PAIRWISE for name in params.pairs}
    expected |= {f"match@{run}" for run in params.runs}
    for run, seed in product(params.runs, params.seeds):
        expected |= {f"distill@{run}-{seed}", f"evaluate@{run}-{seed}"}
    where = "" if profile == "root" else f"{folder.relative_to(ROOT).as_posix()}/"
    assert stage_names[where] == expected
