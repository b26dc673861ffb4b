"""Teachers that exist already: their weights are taken over whole, measured, gated, and nothing of them is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from support.file_server import Site, serve
from support.marks import long_but
from support.worlds import World, runs, same

from benchmark.data.faults import DataError
from benchmark.data.manifest import changed_since
from benchmark.evidence.record import Record
from benchmark.experiment.config import detector_config, model_dict
from benchmark.experiment.settings import TEACHER, Dataset, Detector, SettingsError, Teacher, parse
from benchmark.experiment.workspace import Workspace, file_digest
from benchmark.look import look
from benchmark.match import match, teacher_of
from benchmark.plan import plan
from benchmark.training.given import NOT_TRAINED, adopt_state, file_of
from pgd.checkpoint import CheckpointError, load_state
from pgd.class_names import listed_classes, require_classes

pytestmark = pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors")


def mmdet2(state: dict) -> dict:
    """Wrapped for several GPUs, with the copies of its EMA, optimiser and classes."""
    copies = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in state.items() if "weight" in name}
    wrapped = {f"module.{name}": value for name, value in (state | copies).items()}
    return {"meta": {"mmdet_version": "2.25.0"}, "state_dict": wrapped, "optimizer": {"param_groups": []}}


def mmdet3(state: dict) -> dict:
    """With the EMA's other half, which is not the average."""
    other = {f"module.{name}": value + 1 for name, value in state.items()}
    return {"message_hub": {}, "state_dict": state, "ema_state_dict": other, "meta": {"dataset_meta": {}}}


FORMS: dict[str, Callable[[dict], dict]] = {
    "bare": lambda state: state,
    "mmdet 2": mmdet2,
    "mmdet 3": mmdet3,
    "of a distiller": lambda state: {"state_dict": {f"student.{k}": v for k, v in state.items()} | {"method.a": v0()}},
}


def v0() -> torch.Tensor:
    return torch.zeros(2)


def given(path: str, **more) -> Callable[[dict], None]:
    """A change of the settings: the teacher is in this file."""

    def change(content: dict) -> None:
        teacher = content["pairs"]["gfl"]["teacher"]
        del teacher["iterations"], teacher["seed"]
        teacher |= {"checkpoint": path, **more}

    return change


@pytest.fixture
def weights(teacher_folder) -> dict:
    return load_state(teacher_folder / "weights.pth")


def put(world: World, content: dict, name: str = "zoo/t.pth") -> Path:
    path = world.folder / name
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("form", long_but("mmdet 3".__eq__, FORMS))
def test_a_given_teacher_teaches(tiny_world, teacher_folder, weights, form, capsys):
    """Its path starts at params.yaml; its AP is that of the training that it came from."""
    world, path = tiny_world, put(tiny_world, FORMS[form](weights))
    params = world.settle(given("zoo/t.pth", sha256=file_digest(path)))
    out = world.train(params, TEACHER)
    assert f"teacher-gfl: all {len(weights)} entries are from t.pth" in capsys.readouterr().out
    assert same(load_state(out / "weights.pth"), weights)
    record = world.evaluate(params, TEACHER)
    trained = Record.read(teacher_folder.parents[2] / "results" / "runs" / "teacher-gfl.json")
    assert record.accuracy == trained.accuracy
    assert (record.iterations, record.train_seconds, record.optimizer) == (0, 0.0, NOT_TRAINED)
    assert record.environment["checkpoint_sha256"] == file_digest(path)
    student = world.evaluate(params, "pgd") if world.train(params, "pgd") else None
    assert student.method == "pgd"
    assert not (world.folder / "work" / "checkpoints" / "teacher-gfl").exists()
    gated = world.settle(given("zoo/t.pth", min_ap=99.0))
    with pytest.raises(SettingsError, match=r"below pairs\.gfl\.teacher\.min_ap = 99"):
        world.train(gated, "pgd")


@pytest.mark.slow
def test_another_file_makes_the_students_stale(tiny_world, weights):
    world = tiny_world
    path = put(world, weights)
    params = world.settle(given("zoo/t.pth"))
    world.train(params, TEACHER)
    before = teacher_of("gfl", world.space)["sha256"]
    planned = (world.space.plan("gfl") / "teacher-gfl.json").read_bytes()
    other = {name: value * 1.5 if value.is_floating_point() else value for name, value in weights.items()}
    put(world, other)
    with pytest.raises(CheckpointError, match=r"t\.pth: changed since it was planned; run `dvc repro` again"):
        world.train(params, TEACHER)
    plan(params)
    assert (world.space.plan("gfl") / "teacher-gfl.json").read_bytes() != planned
    world.train(params, TEACHER)
    assert teacher_of("gfl", world.space)["sha256"] != before
    match(params)
    assert json.loads(world.space.matched("pgd").read_text())["teacher"]["sha256"] != before
    assert path.is_file()


def test_the_plan_names_the_file_and_nothing_else_changes(tiny_world, weights):
    world, path = tiny_world, put(tiny_world, weights)
    world.settle(lambda content: content["pairs"]["gfl"]["teacher"].pop("iterations"))
    trained = {p.stem: json.loads(p.read_text()) for p in world.space.plan("gfl").iterdir()}
    assert "checkpoint" not in trained["teacher-gfl"]
    world.settle(given("zoo/t.pth"))
    entries = {p.stem: json.loads(p.read_text()) for p in world.space.plan("gfl").iterdir()}
    own = entries.pop("teacher-gfl")
    assert own.pop("checkpoint") == file_digest(path)
    for module in ("benchmark.training.given", "pgd.class_names"):
        assert own["code"].pop(module)
    assert own == trained.pop("teacher-gfl")
    assert entries == trained, "students learn of it by `match`"
    world.settle(given("https://example.org/t.pth"))
    assert (
        json.loads((world.space.plan("gfl") / "teacher-gfl.json").read_text())["checkpoint"]
        == "https://example.org/t.pth"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (given("zoo"), r"pairs\.gfl\.teacher\.checkpoint: .*zoo is no file \(paths start at params"),
        (given("zoo/none.pth"), r"pairs\.gfl\.teacher\.checkpoint: .*zoo/none\.pth is no file \(paths start at params"),
        (
            given("zoo/t.pth", sha256="0" * 64),
            r"pairs\.gfl\.teacher\.sha256: .*t\.pth has [0-9a-f]{64}; give the right",
        ),
        (given("zoo/t.pth", sha256="0"), r"pairs\.gfl\.teacher\.sha256: "),
        (given("zoo/t.pth", iterations=3), "iterations: a teacher with a checkpoint is not trained"),
        (lambda c: c["pairs"]["gfl"]["teacher"].update(sha256="0" * 64), "sha256: of which file"),
    ],
)
def test_settings_that_are_refused(tiny_world, weights, change, said):
    put(tiny_world, weights)
    with pytest.raises(SettingsError, match=said):
        tiny_world.settle(change)


def model(config: str = "benchmark/configs/mini/gfl_r34.py", classes: int = 8):
    return MODELS.build(
        model_dict(detector_config(Detector(config, options={"model.backbone.init_cfg": None})), classes)
    )


SPOILT = {
    "lacks one": (lambda s: s.pop("neck.fpn_convs.0.conv.bias"), "1 entries are missing (first: neck.fpn_convs.0.conv"),
    "has one more": (lambda s: s.update(extra=v0()), "1 entries are not part of the detector (first: extra)"),
    "another EMA": (lambda s: s.update(ema_extra=v0()), "1 entries are not part of the detector (first: ema_extra)"),
    "another shape": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": v0()}),
        "entries have another shape (bbox_head.gfl_cls.bias is (2,), not (8,))",
    ),
    "not finite": (lambda s: s["bbox_head.gfl_cls.bias"].fill_(float("nan")), "bbox_head.gfl_cls.bias is not finite"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_weights_that_do_not_fit(case):
    spoil, said = SPOILT[case]
    detector = model()
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    spoil(state)
    with pytest.raises(CheckpointError) as caught:
        adopt_state(detector, state, Path("t.pth"))
    assert said in str(caught.value)


def test_names_of_mmdet_before_its_second_version():
    """FCOS's last layers were called after it."""
    detector = model("benchmark/configs/mini/fcos_r18.py")
    new = {name: value.clone() for name, value in detector.state_dict().items()}
    old = {name.replace("bbox_head.conv_", "bbox_head.fcos_"): value + 1 for name, value in new.items()}
    assert "bbox_head.fcos_cls.weight" in old
    report = adopt_state(detector, old, Path("t.pth"))
    assert set(report.copied) == set(new)
    assert torch.equal(detector.bbox_head.conv_cls.weight, new["bbox_head.conv_cls.weight"] + 1)


@pytest.mark.parametrize("key", ["CLASSES", "classes"])
def test_classes(tiny_data, tmp_path, key):
    """Other names are other classes; of the same ones in another order nobody knows which is which."""
    names = tuple(tiny_data.classes)
    torch.save({"state_dict": {}, "meta": {key: names}}, tmp_path / "t.pth")
    require_classes(tmp_path / "t.pth", tiny_data.classes, tiny_data.name)
    with pytest.raises(CheckpointError, match=r"only one of them has: 'aardvark'\); give a teacher of these classes"):
        require_classes(tmp_path / "t.pth", [*names[1:], "aardvark"], tiny_data.name)
    with pytest.raises(CheckpointError, match=r"on 10 classes, minicoco has 11 \(.* has: 'zebra'\)"):
        require_classes(tmp_path / "t.pth", [*names, "zebra"], tiny_data.name)
    swapped = (names[0], names[2], names[1], *names[3:])
    torch.save({"state_dict": {}, "meta": {key: swapped}}, tmp_path / "t.pth")
    with pytest.raises(CheckpointError) as caught:
        require_classes(tmp_path / "t.pth", tiny_data.classes, tiny_data.name)
    assert str(caught.value) == (
        f"{tmp_path / 't.pth'}: lists the classes in another order than minicoco (number 1 is '{names[2]}' there, "
        f"'{names[1]}' here); give the categories of the annotation files its order, or, where those of its training "
        "had that of minicoco (mmdet numbers classes by the file, whatever the list says), give a file of its "
        "state_dict alone"
    )
    require_classes(tmp_path / "t.pth", list(swapped), tiny_data.name)


@pytest.mark.parametrize(
    "meta",
    [
        [1],
        "v1",
        torch.ones(2),
        {"dataset_meta": ["a"]},
        {"classes": 8},
        {"classes": [1, 2]},
        {"classes": [{"id": 1}]},
        {"classes": {"a": 0}},
        {"classes": None},
        {"classes": []},
    ],
    ids=str,
)
def test_what_is_no_list_of_names_says_nothing(tiny_data, tmp_path, meta):
    """Other libraries keep other things there."""
    torch.save({"state_dict": {}, "meta": meta}, tmp_path / "t.pth")
    assert listed_classes(tmp_path / "t.pth") is None
    require_classes(tmp_path / "t.pth", tiny_data.classes, tiny_data.name)


def test_one_class(tiny_data, tmp_path):
    """mmdet takes a name for the list of it."""
    torch.save({"state_dict": {}, "meta": {"CLASSES": "cell"}}, tmp_path / "t.pth")
    assert listed_classes(tmp_path / "t.pth") == ("cell",)
    require_classes(tmp_path / "t.pth", ["cell"], tiny_data.name)


@pytest.mark.slow
def test_another_order_of_classes_is_refused_before_anything_is_written(tiny_world, weights, capsys):
    """The weights alone, of a training on files of this order, are taken."""
    world = tiny_world
    names = list(reversed(world.data.classes))
    content = {"state_dict": weights, "meta": {"dataset_meta": {"classes": names}}}
    path = put(world, content)
    params = world.settle(given("zoo/t.pth"))
    with pytest.raises(CheckpointError, match=rf"^{path}: lists the classes in another order than minicoco \("):
        world.train(params, TEACHER)
    assert not world.space.teacher("gfl").exists()
    assert same(load_state(path), weights)
    put(world, weights)
    out = world.train(world.settle(given("zoo/t.pth")), TEACHER)
    assert capsys.readouterr().out.splitlines() == [f"teacher-gfl: all {len(weights)} entries are from t.pth"]
    exported = torch.load(out / "weights.pth", weights_only=True)
    assert list(exported["meta"]["dataset_meta"]["classes"]) == world.data.classes
    assert same(exported["state_dict"], weights)


def test_an_address(tmp_path, monkeypatch, capsys):
    """Downloaded once; the digest in its name, or the one that is given, must be its own."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "t").write_bytes(b"weights")
    sha256 = file_digest(tmp_path / "t")
    name = f"gfl-{sha256[:8]}.pth"
    files = dict.fromkeys([f"/{name}", "/gfl-00000000.pth", "/gfl.pth"], b"weights")
    with serve(Site(files)) as site:
        teacher = Teacher("c.py", checkpoint=f"{site.address}/{name}", sha256=sha256)
        for _ in range(2):
            assert file_of(teacher, tmp_path / "kept").read_bytes() == b"weights"
        assert len(site.asked) == 1
        with pytest.raises(DataError, match=rf"SHA-256 is {sha256}, published is 1{{64}}\); move it away and run"):
            file_of(replace(teacher, sha256="1" * 64), tmp_path / "kept")
        with pytest.raises(DataError, match=r"published is 00000000\).*, or correct teacher\.checkpoint or"):
            file_of(replace(teacher, checkpoint=f"{site.address}/gfl-00000000.pth", sha256=None), tmp_path / "kept")
        assert {path.name for path in (tmp_path / "kept").iterdir()} == {name, "gfl-00000000.pth.wrong"}
        assert capsys.readouterr().out == ""
        file_of(Teacher("c.py", checkpoint=f"{site.address}/gfl.pth"), tmp_path / "kept")
        assert f"/gfl.pth: nothing to check it by; put `sha256: {sha256}` beside" in capsys.readouterr().out


def test_the_pipeline_looks_at_the_file(tmp_path):
    """Beside the data, whose own check it does not touch."""
    (tmp_path / "t.pth").write_bytes(b"1")
    space = Workspace(tmp_path)

    def seen() -> dict:
        look("mini", Dataset("minicoco"), space, [tmp_path / "t.pth"])
        return json.loads(space.look("mini").read_text())

    before = seen()
    assert before["checkpoints"] == {str(tmp_path / "t.pth"): file_digest(tmp_path / "t.pth")}
    (tmp_path / "t.pth").write_bytes(b"2")
    assert changed_since(before) == []
    assert seen() != before


def test_other_files_are_as_they_were(tmp_path):
    space = Workspace(tmp_path)
    look("mini", Dataset("minicoco"), space)
    assert json.loads(space.look("mini").read_text()).keys() == {"annotations", "images"}


def test_trials_need_a_teacher_of_their_own(tmp_path):
    from support.worlds import light_content

    from benchmark.tune import tune

    content = light_content()
    runs(2, pgd={"method": "pgd"})(content)
    given("t.pth")(content)
    with pytest.raises(SettingsError, match="this teacher has seen the images that the trials are measured on"):
        tune(parse(content), {}, "gfl", 2, 1, tmp_path / "out.csv")
