"""The walk-through's sections on own classes and on several GPUs, word for word, on a tiny set of two classes."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.coco_tree import annotations_of, edit, write_tree
from support.commands import environment
from support.detectors import images, pair, sample
from support.served import settings_at_once
from support.walk_through import MARKS, PAGE, STEPS, block, settle, stand, write_teacher

from pgd.checkpoint import load_state
from pgd.methods import METHODS

pytestmark = MARKS
#: as the page calls them, in the order of the annotation files
CLASSES = ("bolt", "nut")
DATA, EXAMPLES = Path("data/coco"), Path("docs/examples")
DISTILL = EXAMPLES / "distill_gfl_parts.py"
#: what of the config can be forgotten
TRAIN = "train_dataloader = dict(dataset=dict(metainfo=metainfo))\n"
VAL = "val_dataloader = dict(dataset=dict(metainfo=metainfo))\ntest_dataloader = val_dataloader\n"
STUDENT, TEACHER = "student=dict(bbox_head=dict(num_classes=2)),", 'teacher="docs/examples/gfl_r50_parts.py"'
HOOK = 'dict(type="NumClassCheckHook"), '
#: Two processes that have no GPU: they meet before mmengine's launcher, which would ask for one.
MEETING = "import torch\ntorch.distributed.init_process_group('gloo')\n"
ON_CPUS = 'model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's, with a teacher that was never trained."""
    folder = tmp_path_factory.mktemp("own")
    settle(folder / "user", folder / "tree")
    write_teacher(folder / "user" / "teacher.pth", len(CLASSES))
    return folder


@pytest.fixture(autouse=True)
def stand_there(folder, monkeypatch):
    """With data and configs as they were written."""
    stand(folder / "user", monkeypatch)
    write_tree(folder / "tree")
    for split in ("train", "val"):
        edit(annotations_of(DATA, split), name_classes)
    DISTILL.write_text(block("NumClassCheckHook"))
    (EXAMPLES / "gfl_r50_parts.py").write_text(block("model = dict(bbox_head=dict(num_classes=2))"))
    Path("student.pth").unlink(missing_ok=True)


@pytest.fixture
def taught_names():
    """Write names of classes into the teacher's file, and take them away in the end."""

    def write(names) -> None:
        content = torch.load("teacher.pth", weights_only=True)
        torch.save({**content, "meta": {"dataset_meta": {"classes": names}} if names else {}}, "teacher.pth")

    yield write
    write(None)


def name_classes(content: dict) -> None:
    for category, name in zip(content["categories"], CLASSES, strict=True):
        category["name"] = name


def code() -> str:
    """The page's code for these classes."""
    return block("Runner.from_cfg").replace("distill_gfl_coco_sample", DISTILL.stem)


def change(old: str, new: str) -> None:
    """Change the config."""
    text = DISTILL.read_text()
    assert old in text
    DISTILL.write_text(text.replace(old, new))


def exported() -> tuple[str, ...]:
    """The names of classes in the student's file."""
    return torch.load("student.pth", weights_only=True)["meta"]["dataset_meta"]["classes"]


def test_own_classes_are_trained_and_exported():
    names: dict = {}
    exec(code(), names)
    # files are written by a visualizer that all trainings of a process share
    steps = names["runner"].message_hub.get_scalar("train/loss_pgd_cls").data[0]
    assert len(steps) == STEPS
    assert all(value > 0 and math.isfinite(value) for value in steps)
    assert exported() == CLASSES
    assert load_state("student.pth")["bbox_head.gfl_cls.bias"].shape == (len(CLASSES),)


@pytest.mark.parametrize("turned", ["metainfo", "file", "both"])
def test_exported_names_are_in_the_order_of_the_heads_channels(turned):
    """Which is the file's, whatever the order of ``metainfo``."""
    if turned != "file":
        change('("bolt", "nut")', '("nut", "bolt")')
    if turned != "metainfo":
        edit(annotations_of(DATA), lambda content: content["categories"].reverse())
    names: dict = {}
    exec(code().replace("runner.train()", ""), names)
    found = exported()
    assert found == (CLASSES if turned == "metainfo" else CLASSES[::-1])
    # a channel learns the objects that have its number as label
    content = json.loads(annotations_of(DATA).read_text())
    called = {category["id"]: category["name"] for category in content["categories"]}
    truth = {(a["image_id"], *a["bbox"][:2]): called[a["category_id"]] for a in content["annotations"]}
    infos = [names["dataset"].get_data_info(i) for i in range(len(names["dataset"]))]
    labelled = {
        (info["img_id"], *instance["bbox"][:2]): found[instance["bbox_label"]]
        for info in infos
        for instance in info["instances"]
    }
    assert labelled == truth
    assert set(labelled.values()) == set(CLASSES)


def failure() -> str:
    """How the page's code ends, nothing being exported."""
    # an untrained detector finds nothing otherwise
    eager = "cfg.model.student.test_cfg.score_thr = 0.0\nrunner = "
    with pytest.raises(Exception) as caught:
        exec(code().replace("runner = ", eager, 1), {})
    assert not Path("student.pth").exists()
    return f"{caught.typename}: {caught.value}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ([TRAIN], "ValueError: need at least one array to concatenate"),
        ([VAL], r"AssertionError: The `num_classes` \(2\) in .* does not matches the length of `classes` 80"),
        ([VAL, HOOK], "IndexError: "),
        ([STUDENT], "ValueError: student and teacher know 80 and 2 classes"),
        ([TEACHER], r"CheckpointError: teacher.pth: does not fit the teacher .*gfl_cls.bias is \(2,\), not \(80,\)"),
    ],
    ids=["train", "val", "val and hook", "student", "teacher"],
)
def test_what_is_left_out_is_seen(left_out, said):
    """As the page's table says."""
    for part in left_out:
        change(part, "")
    assert re.match(said, failure())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("bolt", "screw"), r"CheckpointError: teacher.pth: trained on 2 classes, .* only one of them has: 'nut'\)"),
        (
            ("nut", "bolt"),
            r"CheckpointError: teacher.pth: lists the classes in another order than the training",
        ),
    ],
    ids=["others", "order"],
)
def test_a_teacher_of_other_classes_is_refused(names, said, taught_names):
    taught_names(names)
    assert re.match(said, failure())


@pytest.mark.long
@pytest.mark.parametrize("names", [CLASSES, None], ids=["listed", "not listed"])
def test_a_teacher_of_these_classes_teaches(names, taught_names, capfd):
    taught_names(names)
    exec(code(), {})
    told = "teacher.pth lists no classes" in "".join(capfd.readouterr())
    assert told == (names is None)


@pytest.mark.long
@pytest.mark.parametrize("hook", [True, False])
def test_both_numbers_of_classes_left_out_are_seen(hook):
    change(f"model = dict({STUDENT} {TEACHER})", 'model = dict(teacher_checkpoint="teacher80.pth")')
    if not hook:
        change(HOOK, "")
    if not Path("teacher80.pth").is_file():
        write_teacher(Path("teacher80.pth"))
    said = r"AssertionError: The `num_classes` \(80\) in .* the length of `classes` 2" if hook else "IndexError: "
    assert re.match(said, failure())


def test_a_name_that_the_file_does_not_have_is_passed_over():
    """The page says so: the classes behind it move up."""
    change('("bolt", "nut")', '("screw", "nut")')
    exec(code().replace("runner.train()", ""), {})
    assert exported() == ("nut",)


@pytest.mark.long
def test_two_processes_train_and_the_first_exports():
    """The page's command and its code, on CPUs."""
    (command,) = re.findall(r"```sh\ntorchrun --nproc_per_node 4 (distill\.py)\n```", PAGE.read_text())
    with DISTILL.open("a") as config:
        config.write(ON_CPUS)
    Path(command).write_text(MEETING + code().replace("work_dirs/distill_gfl", "work_dirs/shared"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", command]
    done = subprocess.run(torchrun, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert exported() == CLASSES
    saved = load_state(f"work_dirs/shared/iter_{STEPS}.pth")
    student = {k.removeprefix("student."): v for k, v in saved.items() if k.startswith("student.")}
    state = load_state("student.pth")
    assert state.keys() == student.keys()
    assert all(torch.equal(value, student[name]) for name, value in state.items())
    (log,) = Path("work_dirs/shared").glob("*/*.log")
    assert re.search(r"Distributed training: True\n\s+GPU number: 2\n", log.read_text())


@pytest.mark.parametrize("method", sorted(METHODS.module_dict))
def test_images_without_an_object_leave_no_parameter_unused(method):
    """What several GPUs need: torch's data parallel training waits for every gradient."""
    model = pair("gfl", method=method, **settings_at_once(method, "gfl"))
    losses = model.loss(images(2), [sample([], [])] * 2)
    sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
