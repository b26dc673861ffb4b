"""The plan files: what a result depends on changes its run's file, and nothing else does."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from support.marks import long_but

from benchmark import plan as stage
from benchmark.experiment import config, digest
from benchmark.experiment.config import MINI, DatasetInfo, config_digest, detector_config, training_config
from benchmark.experiment.digest import code_digest
from benchmark.experiment.settings import Detector, Params, Run, SettingsError, parse
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.plan import check_pretrained, parts_of, sources
from pgd.methods import METHODS
from pgd.methods.base import method_class
from pgd.scaling import published_settings

SOURCE = '''
"""A module."""
import math  # for the root


class A:
    """A class."""

    size = 3

    def root(self, x: float = 2.0) -> float:
        """A method."""
        return math.sqrt(x) + self.size


async def run():
    """Only words."""


TEXT = "a value"
'''
SAME = {
    "module_docstring": ('"""A module."""', '"""Another text,\nof two lines."""'),
    "no_docstring": ('    """A class."""\n', ""),
    "method_docstring": ('"""A method."""', '"""What is under the root."""'),
    "lone_docstring": ('"""Only words."""', '"""Others."""'),
    "docstring_for_pass": ('"""Only words."""', "pass"),
    "comment": ("  # for the root", ""),
    "comment_line": ("import math", "# needed\nimport math"),
    "layout": ("x: float = 2.0) -> float:", "\n        x: float = 2.0,\n    ) -> float:"),
    "quotes": ('"a value"', "'a value'"),
    "brackets": ("math.sqrt(x) + self.size", "(math.sqrt(x) + self.size)"),
}
OTHER = {
    "number": ("size = 3", "size = 4"),
    "type_of_number": ("2.0", "2"),
    "operator": ("(x) + ", "(x) - "),
    "name": ("root(", "roots("),
    "text": ("a value", "another value"),
    "statement": ("TEXT =", "OTHER = TEXT ="),
    "decorator": ("    def root", "    @property\n    def root"),
    "docstring_no_longer_first": ('    """A class."""\n', '    other = 1\n    """A class."""\n'),
}


@pytest.mark.parametrize("change", SAME)
def test_digest_overlooks(tmp_path, change):
    changed = SOURCE.replace(*SAME[change])
    assert changed != SOURCE
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(changed)
    assert code_digest(tmp_path / "a.py") == code_digest(tmp_path / "b.py")


@pytest.mark.parametrize("change", OTHER)
def test_digest_sees(tmp_path, change):
    changed = SOURCE.replace(*OTHER[change])
    assert changed != SOURCE
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(changed)
    assert code_digest(tmp_path / "a.py") != code_digest(tmp_path / "b.py")


def test_digest_is_the_same_with_every_python(tmp_path):
    """From 3.12 on a syntax tree has more to say of the same code."""
    (tmp_path / "a.py").write_text(SOURCE)
    assert code_digest(tmp_path / "a.py") == "22bebe1d265d5289"


def content() -> dict:
    """Every method, and the plain runs, without pretrained files."""
    options = {"model.backbone.init_cfg": None}
    return {
        "datasets": {"minicoco": {}},
        "pairs": {
            "gfl": {
                "dataset": "minicoco",
                "teacher": {"config": "benchmark/configs/mini/gfl_r34.py", "options": options},
                "student": {"config": "benchmark/configs/mini/gfl_r18.py", "options": dict(options)},
            }
        },
        "runs": {
            "student": {"pair": "gfl"},
            "inherit": {"pair": "gfl", "inherit": "head+neck"},
            **{
                m: {"pair": "gfl", "method": m, "inherit": "head+neck", "settings": published_settings(m, "gfl", MINI)}
                for m in sorted(METHODS.module_dict)
            },
        },
    }


TEACHER = "teacher-gfl"


@pytest.fixture(scope="module")
def quick_digest():
    """The digests of one moment, each worked out once."""
    return functools.cache(code_digest)


@pytest.fixture(autouse=True)
def once(monkeypatch, quick_digest, tiny_data):
    monkeypatch.setattr(digest, "code_digest", quick_digest)
    monkeypatch.setattr(DatasetInfo, "load", lambda name, space: replace(tiny_data, digest=name))


@pytest.fixture(scope="module")
def before(tmp_path_factory, quick_digest, tiny_data) -> dict[str, bytes]:
    """The plan files of :func:`content`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "code_digest", quick_digest)
        patch.setattr(DatasetInfo, "load", lambda name, space: replace(tiny_data, digest=name))
        return planned(tmp_path_factory.mktemp("before"))


def planned(folder: Path, change=lambda c: None) -> dict[str, bytes]:
    """Bytes of all plan files after a change of the settings."""
    changed = content()
    change(changed)
    space = Workspace(folder)
    stage.plan(parse(copy.deepcopy(changed)), space)
    return {path.stem: path.read_bytes() for path in (space.work / "plan").rglob("*.json")}


def differing(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The runs whose files were altered, added or removed."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


#: What methods take from others: terms, masks, a block; the release is PGD but for its faults.
TAKEN_FROM = {
    "crosskd": {"bckd", "cskd"},
    "fgd": {"detkds", "tinykd"},
    "fkd": {"cankd"},
    "pgd": {"pgd_neck", "pgd_released"},
}
ALL_STUDENTS = {"student", "inherit", *METHODS.module_dict}
NEED_TEACHER = ALL_STUDENTS - {"student"}


def add_pair(content: dict) -> None:
    content["pairs"]["more"] = copy.deepcopy(content["pairs"]["gfl"])


def add_dataset(content: dict, used: str = "minicoco") -> None:
    content["datasets"]["other"] = {"kind": "minicoco"}
    content["pairs"]["gfl"]["dataset"] = used


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "runs"),
    [
        (lambda c: None, set()),
        (lambda c: c["runs"]["pgd"].update(settings={"alpha": 0.5}), {"pgd"}),
        (lambda c: c["runs"]["pgd"].update(inherit="none"), {"pgd"}),
        (lambda c: c["runs"]["ld"].update(options={"train_dataloader.batch_size": 3}), {"ld"}),
        (lambda c: c["runs"].update(more={"pair": "gfl", "method": "pgd"}), {"more"}),
        (lambda c: c["runs"].pop("fgd"), {"fgd"}),
        (lambda c: c["runs"].update(fgd=c["runs"].pop("fgd")), set()),
        (lambda c: c.update(seeds=[0, 1, 2]), set()),
        (lambda c: c["pairs"]["gfl"]["student"].update(iterations=7), ALL_STUDENTS),
        (lambda c: c["pairs"]["gfl"]["student"]["options"].update({"optim_wrapper.optimizer.lr": 1.0}), ALL_STUDENTS),
        # what the students owe to the teacher's weights is added by `match`
        (lambda c: c["pairs"]["gfl"]["teacher"].update(iterations=7), {TEACHER}),
        # a new bound has to be checked by whoever is taught; the teacher itself is as good as it was
        (lambda c: c["pairs"]["gfl"]["teacher"].update(min_ap=20), NEED_TEACHER),
        (add_pair, {"teacher-more"}),
        (add_dataset, set()),
        (lambda c: add_dataset(c, "other"), ALL_STUDENTS | {TEACHER}),
    ],
    ids=[
        *("nothing", "setting", "inherit", "option", "new_run", "gone", "order", "seeds"),
        *("iterations", "lr", "teacher", "min_ap", "new_pair", "new_data", "other_data"),
    ],
)
def test_changes_touch_what_depends_on_them(before, tmp_path, change, runs):
    # over the files of the time before, as `dvc repro` finds them
    folder = Workspace(tmp_path).plan("gfl")
    folder.mkdir(parents=True)
    for name, text in before.items():
        (folder / f"{name}.json").write_bytes(text)
    assert differing(before, planned(tmp_path, change)) == runs


@pytest.mark.slow
@pytest.mark.parametrize("method", long_but(TAKEN_FROM.__contains__, sorted(METHODS.module_dict)))
def test_editing_a_method_touches_its_runs(before, tmp_path, monkeypatch, quick_digest, method):
    module = METHODS.get(method).__module__
    monkeypatch.setattr(
        digest, "code_digest", lambda p: "new" if p.stem == module.rpartition(".")[2] else quick_digest(p)
    )
    same_file = {name for name, cls in METHODS.module_dict.items() if cls.__module__ == module}
    assert method in same_file
    assert differing(before, planned(tmp_path)) == same_file | TAKEN_FROM.get(method, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "runs"),
    [
        ("distiller", ALL_STUDENTS | {TEACHER}),
        ("run", ALL_STUDENTS | {TEACHER}),
        ("draws", ALL_STUDENTS | {TEACHER}),
        ("stored", set(METHODS.module_dict)),
        ("train", set()),
        ("settings", set()),
        ("config", set()),
        ("match", set()),
        ("hooks", ALL_STUDENTS | {TEACHER}),
        ("dynamics", NEED_TEACHER),
        ("evaluation", set()),
        ("evaluate", set()),
        ("usage", set()),
        ("progress", set()),
        ("coco", set()),
        ("cli", set()),
        ("attention", {"cankd", "detkds", "fgd", "fkd", "pgd", "pgd_neck", "pgd_released", "tinykd"}),
        ("regions", NEED_TEACHER),
        ("gfl", ALL_STUDENTS | {TEACHER}),
        ("fcos", set()),
        ("report", set()),
    ],
)
def test_editing_shared_code(before, tmp_path, monkeypatch, quick_digest, module, runs):
    monkeypatch.setattr(digest, "code_digest", lambda p: "new" if p.stem == module else quick_digest(p))
    assert differing(before, planned(tmp_path)) == runs


@pytest.mark.slow
def test_sources_are_real_modules():
    for method in METHODS.module_dict:
        gfl = {MODELS.get("GFLHead")}
        found = sources(gfl, Run(method))
        assert method_class(method).__module__ in found
        assert all(len(v) == 16 for v in found.values())
        assert (
            found.items()
            >= sources({MODELS.get("GFLHead")}, Run()).items()
            == sources({MODELS.get("GFLHead")}, None).items()
        )


@pytest.mark.slow
def test_stale_files_go(tmp_path):
    stale = Workspace(tmp_path).plan("gfl") / "old.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    assert set(planned(tmp_path)) == ALL_STUDENTS | {TEACHER}


def test_nothing_is_written_when_one_run_is_wrong(tmp_path):
    with pytest.raises(SettingsError, match=r"runs\.pgd: settings\.alhpa"):
        planned(tmp_path / "plan", lambda c: c["runs"]["pgd"].update(settings={"alhpa": 1}))
    assert not (tmp_path / "plan").exists()


def test_pretrained_weights_are_part_of_it(tmp_path):
    assert check_pretrained(detector_config(Detector(**content()["pairs"]["gfl"]["student"]))) is None
    weights = tmp_path / "w.pth"
    options = {"model.backbone.init_cfg.checkpoint": str(weights)}
    cfg = detector_config(Detector("benchmark/configs/mini/gfl_r18.py", options=options))
    with pytest.raises(SettingsError, match=r"w\.pth: pretrained backbone missing; `dvc pull data`"):
        check_pretrained(cfg)
    weights.write_bytes(b"one")
    first = check_pretrained(cfg)
    weights.write_bytes(b"two")
    assert len(first) == 16
    assert first != check_pretrained(cfg)
    options = {"model.backbone.init_cfg.checkpoint": "torchvision://resnet18"}
    cfg = detector_config(Detector("benchmark/configs/mini/gfl_r18.py", options=options))
    assert check_pretrained(cfg) == "torchvision://resnet18"


def test_files_do_not_name_this_machine(before, monkeypatch):
    assert not any(str(ROOT).encode() in text for text in before.values())
    cfg = detector_config(Detector("benchmark/configs/mini/gfl_r18.py"))
    elsewhere = Config(json.loads(json.dumps(cfg.to_dict()).replace(str(ROOT), "/elsewhere")))
    monkeypatch.setattr(config, "ROOT", Path("/elsewhere"))
    digest = config_digest(elsewhere)
    monkeypatch.undo()
    assert config_digest(cfg) == digest


def test_files_are_readable(before):
    entry = json.loads(before["pgd"])
    assert len(entry["config"]) == 16
    assert "pgd.methods.pgd" in entry["code"]
    assert set(entry["libraries"]) == {"torch", "torchvision", "mmdet", "mmengine", "numpy"}
    assert entry["teacher_min_ap"] == 0.0
    assert json.loads(before["student"])["teacher_min_ap"] is None


def params() -> Params:
    return parse(yaml.safe_load(yaml.safe_dump(content())))


def test_training_config(tiny_data):
    """A method's run holds teacher, method and inheriting; a plain run and the teacher hold neither."""
    data: DatasetInfo = tiny_data
    asked = params()
    weights, work = Path("t.pth"), Path("w")
    for job, depth in ((asked.teacher("gfl"), 34), (asked.student("student", 3), 18)):
        cfg = training_config(job, data, None, work)
        assert cfg.model.keys() == {"type", "channels_last", "student", "data_preprocessor"}
        assert cfg.model.student.backbone.depth == depth
        assert cfg.randomness.seed == job.seed
        assert cfg.model.student.bbox_head.num_classes == len(data.classes)
    cfg = training_config(asked.student("inherit"), data, weights, work)
    assert (cfg.model.inherit, cfg.model.teacher_checkpoint) == ("head+neck", "t.pth")
    assert "method" not in cfg.model
    run = Run("pgd", settings={"alpha": 2.0})
    cfg = training_config(replace(asked.student("pgd"), run=run), data, weights, work)
    assert cfg.model.method == {"type": "pgd", "alpha": 2.0}
    assert cfg.model.inherit == "none"
    assert cfg.model.teacher.backbone.depth == 34
    assert cfg.model.teacher.backbone.init_cfg is None
    assert cfg.val_dataloader.dataset.indices == 6
    assert cfg.val_evaluator.areas == tuple(data.areas)


def test_an_assigner_of_ours_is_a_part():
    """DDOD's assigner stands in a file that its head does not import."""
    model = detector_config(Detector("benchmark/configs/mini/ddod_r18.py")).model
    assert "pgd.detectors.ddod" in sources(parts_of(model), None)
