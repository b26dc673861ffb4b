"""What a stage declares to depend on is what it imports when it runs, and evaluation code touches no training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.worlds import light_content

from benchmark.closures import main as write_closures
from benchmark.experiment import digest
from benchmark.experiment.config import GROUPED
from benchmark.experiment.digest import BESIDE_TRAINING, PLUG_INS, STAGES, closure, imported, stage_closures
from benchmark.experiment.workspace import HERE, ROOT, Workspace
from benchmark.match import LEARNER
from benchmark.training.run import DYNAMICS

#: Runs modules as commands, and the cells of notebooks, one after the other, each in a process that has nothing of this
#: repository yet and some plug-ins only (or all), and writes down which of its modules were imported by the end. What
#: takes most of a start, libraries that are loaded without mmcv's operators, these processes have from their parent.
WATCHED = """
import json, multiprocessing, pkgutil, runpy, sys
import mmengine, pycocotools.mask, seaborn, torch, torch.distributed.fsdp, torchvision
scan = pkgutil.iter_modules
def run(out, plug_ins, name, *arguments):
    def some(path=None, prefix=""):
        folders = ("pgd/methods", "pgd/heads", "pgd/detectors")
        chosen = [p for p in path or () if p.endswith(folders)] and plug_ins != "all"
        return [m for m in scan(path, prefix) if not chosen or m.name in plug_ins.split(",")]
    pkgutil.iter_modules, sys.argv = some, [name, *arguments]
    book = name.endswith(".ipynb")
    try:
        if book:
            from benchmark import notebook
            notebook.display = lambda item, **options: None
            cells = [c["source"] for c in json.load(open(name))["cells"] if c["cell_type"] == "code"]
            cell = {"__name__": "__main__"}
            for source in cells:
                exec("".join(line for line in source if not line.startswith("%")), cell)
        else:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        loaded = sorted(m for m in sys.modules if m.split(".")[0] in ("pgd", "benchmark"))
        json.dump(loaded if book else [name, *loaded], open(out, "w"))
for job in json.loads(sys.argv[1]):
    assert not any(m.split(".")[0] in ("pgd", "benchmark") for m in sys.modules)
    child = multiprocessing.get_context("fork").Process(target=run, args=job)
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{' '.join(job)}: failed")
"""


def loaded_by(folder: Path, commands: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """The modules that ``python -m benchmark.<command>``, or a notebook, has imported in ``folder``, by stage."""
    jobs = []
    for stage, (command, plug_ins) in commands.items():
        name, *arguments = command.split()
        name = name if name.endswith(".ipynb") else f"benchmark.{name}"
        jobs.append([str(folder / f"{stage}.loaded.json"), plug_ins, name, *arguments])
    settings = {"PYTHONPATH": str(ROOT), "PGD_RESULTS": str(folder / "results"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps(jobs)],
        cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {stage: set(json.loads(Path(job[0]).read_text())) for stage, job in zip(commands, jobs, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A place for a pipeline of seconds, on images of the mini set."""
    if not (ROOT / "data" / "minicoco.zip").is_file():
        pytest.skip("no mini set; `dvc pull data.dvc` fetches it")
    folder = tmp_path_factory.mktemp("closures")
    content = light_content()
    content["datasets"]["minicoco"] = {"train_images": 8, "val_images": 4}
    # learns masks before its students
    content["runs"]["maskd"] = {"pair": "gfl", "method": "maskd", "settings": {"warmup": 1}}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.slow
def test_stages_declare_what_they_import(folder):
    """The whole pipeline, stage by stage, as `dvc repro` runs it, and what the notebooks' cells do with its results."""
    commands = {
        "closures": "closures",
        "look": "look minicoco",
        "prepare": "prepare minicoco",
        "check": "check --models",
        "plan": "plan gfl",
        "teacher": "train teacher gfl",
        "evaluate_teacher": "evaluate gfl --teacher",
        "match": "match pgd student",
        "masks": "match maskd",
        "distill": "train distill pgd --seed 0",
        "masked": "train distill maskd --seed 0",
        "plain": "train distill student --seed 0",
        "evaluate": "evaluate pgd --seed 0",
        "evaluate_plain": "evaluate student --seed 0",
        "evaluate_masked": "evaluate maskd --seed 0",
        "cost": "cost",
        "key_regions": "key_regions gfl",
        "region_figures": "region_figures",
        "report": "report",
        "summary": "summary",
    }
    books = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if "crowdhuman" not in path.name]
    commands |= {path.stem: str(path) for path in books}
    planned = {"teacher": "teacher-gfl", "masks": "maskd", "distill": "pgd", "masked": "maskd", "plain": "student"}
    declared_by = dict.fromkeys(("evaluate_teacher", "evaluate_plain", "evaluate_masked"), "evaluate")
    declared_by |= dict.fromkeys((path.stem for path in books), "notebooks")
    # what a stage needs of the plug-ins: a training's are in its roots
    of_stage = {"distill": "gfl,pgd", "masked": "gfl,maskd,pgd", "check": "all", "plan": "all", "cost": "all"}
    found = loaded_by(folder, {stage: (command, of_stage.get(stage, "gfl")) for stage, command in commands.items()})
    holes = {}
    for stage, loaded in found.items():
        if stage == "closures":
            continue
        if stage in planned:
            declared = set(json.loads((Workspace(folder).plan("gfl") / f"{planned[stage]}.json").read_text())["code"])
            loaded = {m for m in loaded if not digest.is_in(m, BESIDE_TRAINING)}
        else:
            path = Workspace(folder).closures / f"{declared_by.get(stage, stage)}.json"
            declared = set(json.loads(path.read_text()))
        # scanned for in their folders: readers, of which only a distillation makes use, and PGD, of which the hook that
        # looks at key regions takes K, which is in the config
        scanned = {"distill": set(), "masked": set(closure({"pgd.methods.pgd"}))}.get(stage, {"pgd.heads.gfl"})
        holes[stage] = sorted(loaded - declared - scanned)
    assert holes == {stage: [] for stage in holes}


@pytest.mark.slow
def test_notebooks_declare_what_their_cells_import():
    declared = stage_closures()["notebooks"]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = imported(digest.notebook_code(path))
        assert "benchmark.notebook" in cells, path
        assert cells <= set(declared), path
    # it is imported in a function, for the notebooks that need a teacher
    assert "benchmark.probe.views" in declared


def test_notebooks_depend_on_the_results_that_they_show_beside_their_own(tmp_path, monkeypatch):
    from benchmark import closures, notebook

    shown = {ROOT / name for name in closures.SHOWN}
    assert shown == {*(ROOT / folder for folder, _ in notebook.KEPT.values()), notebook.PHOTOGRAPHS, notebook.CHANGES}
    monkeypatch.setattr(closures, "ROOT", tmp_path)
    for folder in (tmp_path / name / "runs" for name in closures.SHOWN):
        folder.mkdir(parents=True)
        (folder / "pgd-0.json").write_text("{}")
    before = closures.shown_beside(Workspace(tmp_path))
    assert before.keys() == {*closures.SHOWN} - {"results"}, "its own follow from stages that it waits for"
    (tmp_path / "experiments/crowd/results/runs/pgd-0.json").write_text("{ }")
    after = closures.shown_beside(Workspace(tmp_path))
    assert {name for name in before if before[name] != after[name]} == {"experiments/crowd/results"}


@pytest.mark.slow
def test_every_stage_of_the_pipeline_has_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["closures"])
    write_closures()
    assert {path.stem for path in HERE.closures.iterdir()} == {*STAGES, "libraries"}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        own = [
            d for d in stage.get("do", stage)["deps"] if d.startswith(("work/closures/", "work/plan/", "work/match/"))
        ]
        assert own or name == "closures", f"{name} depends on no file that knows its code"
        for dependency in own:
            if dependency.startswith("work/closures/"):
                assert Path(dependency).stem in {*STAGES, "libraries"}, name


def test_an_import_in_a_function_counts():
    assert imported("def f():\n    from benchmark import evaluate\n") == {"benchmark", "benchmark.evaluate"}


def test_names_of_a_package_count_where_they_are_modules():
    found = imported("from benchmark.experiment import cli, nothing")
    assert found == {"benchmark.experiment", "benchmark.experiment.cli"}


def test_evaluation_and_reporting_are_in_no_training():
    found = closure({"benchmark.training.run", DYNAMICS, *PLUG_INS}, BESIDE_TRAINING)
    rooms = ("benchmark.evidence", "benchmark.figures", "benchmark.probe", "pgd.evaluation", "benchmark.evaluate")
    assert [m for m in found if m.startswith((*rooms, "benchmark.report", "benchmark.experiment.evaluation"))] == []


def test_the_plan_goes_through_the_code_of_all_trainings():
    """Or a change of it would leave the plan, and with it every training, as up to date."""
    roots = {"benchmark.training.run", "benchmark.training.stored", DYNAMICS, GROUPED, LEARNER, *PLUG_INS}
    trainings = closure(roots, BESIDE_TRAINING)
    assert trainings.items() <= stage_closures()["plan"].items()


@pytest.mark.parametrize("stage", yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
def test_no_stage_names_code_by_hand(stage):
    """Code is depended on through closures alone; configs, notebooks and templates are data."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    depends = content.get("do", content)["deps"]
    shared = {d.removeprefix("${repo}/") for d in depends if d.startswith("${repo}/")}
    data = {
        "data",
        "data/pretrained",
        "benchmark/configs",
        "benchmark/templates",
        "experiments/titles.yaml",
        "notebooks",
    }
    assert shared <= data | ({"benchmark", "pgd"} if stage == "closures" else set())


def circles() -> list[str]:
    """Modules that import themselves by way of others."""
    files = [f for package in digest.PACKAGES for f in (ROOT / package).rglob("*.py") if "configs" not in f.parts]
    graph = {}
    for file in files:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        # a package's own module is imported through it, which is no circle
        graph[module] = {m for m in imported(file.read_text()) if not module.startswith(f"{m}.")} - {module}
    found = []
    for start in graph:
        seen, todo = set(), set(graph[start])
        while todo:
            seen |= todo
            todo = set().union(*(graph.get(m, set()) for m in todo)) - seen
        if start in seen:
            found.append(start)
    return sorted(found)


def test_no_module_imports_itself_by_way_of_others():
    assert circles() == []
