"""Checkpoints: what is refused and how it is said, atomic writing, inheriting, resuming."""

from __future__ import annotations

import errno
import io
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn
from torch.testing import assert_close

import pgd.plugin  # noqa: F401  (registers what weights_only=True may read)
from pgd.checkpoint import (
    CheckpointError,
    InheritReport,
    atomic_save,
    export,
    inherit,
    load_state,
    load_strict,
)


class Net(nn.Module):
    """A detector's outline: parts named as mmdet names them."""

    def __init__(self, width: int = 2, classes: int = 3, deep: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 3)
        self.neck = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.bbox_head = nn.Conv2d(2, classes, 1)
        if deep:
            self.extra = nn.Linear(2, 2)


class Payload:
    """Unpickling it runs code: it makes a directory."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class Reach:
    """Unpickling it asks for an attribute through getattr, as a HistoryBuffer's pickle does."""

    def __init__(self, owner: object, name: str) -> None:
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


def saved(content: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert "no such checkpoint" in error_of(tmp_path / "absent.pth")
    assert "no such checkpoint" in error_of(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, share):
    path, whole = tmp_path / "cut.pth", saved({"state_dict": Net().state_dict()})
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cut off" in error_of(path)


LEGACY = saved(Net().state_dict(), _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x00" * 64,
        LEGACY[:-40],
        b"hello world\n",
        LEGACY[:18],
        LEGACY[:49],
    ],
    ids=["lfs_pointer", "zeros", "legacy_cut", "text", "legacy_head_18", "legacy_head_49"],
)
def test_file_of_something_else(tmp_path, content):
    (tmp_path / "junk.pth").write_bytes(content)
    error_of(tmp_path / "junk.pth")


def test_code_in_a_pickle_is_not_run(tmp_path):
    path, target = tmp_path / "evil.pth", tmp_path / "made"
    torch.save({"state_dict": Net().state_dict(), "meta": Payload(target)}, path)
    assert "refused" in error_of(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()


REACHES = [(HistoryBuffer, "__init__"), (OrderedDict, "mean"), (HistoryBuffer.min, "mean")]


@pytest.mark.parametrize("reach", REACHES, ids=["method", "owner", "nested"])
def test_getattr_serves_nothing_but_history_statistics(tmp_path, reach):
    torch.save({"meta": Reach(*reach)}, tmp_path / "evil.pth")
    assert "refused" in error_of(tmp_path / "evil.pth")


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(2)],
        torch.ones(2),
        {"epoch": 3},
        {"state_dict": [torch.ones(2)]},
        {"state_dict": {"a": 1.0}},
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}},
        torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1).state_dict(),
    ],
    ids=["list", "tensor", "numbers", "list_inside", "numbers_inside", "optimiser", "optimiser_alone"],
)
def test_no_state_dict_in_the_file(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    assert "no state dict" in error_of(tmp_path / "other.pth")


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_load_strict_fills_the_model(tmp_path, wrapped, legacy):
    source, model = Net(), Net()
    state = OrderedDict(source.state_dict())
    content = {"state_dict": state, "meta": {"epoch": 3}} if wrapped else state
    (tmp_path / "a.pth").write_bytes(saved(content, _use_new_zipfile_serialization=not legacy))
    load_strict(model, tmp_path / "a.pth", "teacher")
    assert_close(model.state_dict(), source.state_dict())


@pytest.mark.parametrize(
    ("source", "model", "words"),
    [
        (Net(), Net(deep=True), "(2 entries missing, 0 unknown, 0 of another shape; extra.bias is missing"),
        (Net(deep=True), Net(), "(0 entries missing, 2 unknown, 0 of another shape; extra.bias is not part"),
        (Net(classes=5), Net(), "(0 entries missing, 0 unknown, 2 of another shape; bbox_head."),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_load_strict_reports_what_does_not_fit(tmp_path, source, model, words):
    path = tmp_path / "a.pth"
    export(source, path)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_strict(model, path, "teacher")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "teacher" in str(caught.value)
    assert_close(dict(model.state_dict()), before)


def test_atomic_save_keeps_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.pth"
    atomic_save({"state_dict": {"w": torch.ones(2)}}, path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.pth"]

    def fail(self, content):
        with self.open("wb") as file:
            file.write(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for target in (path, tmp_path / "b.pth"):
        with pytest.raises(OSError, match="No space left") as caught:
            atomic_save({"state_dict": {"w": torch.zeros(2)}}, target)
        assert caught.value.filename == str(target)
    assert_close(load_state(path), {"w": torch.ones(2)})
    assert not (tmp_path / "b.pth").exists()
    monkeypatch.undo()
    atomic_save({"w": torch.zeros(2)}, path)
    assert_close(load_state(path), {"w": torch.zeros(2)})
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.pth"]


def test_inherit_copies_all_but_the_backbone():
    student, teacher = Net(width=4), Net(width=6)
    teacher.neck[1].running_mean.fill_(7.0)
    backbone = student.backbone.weight.clone()
    report = inherit(student, teacher)
    names = {name for name in teacher.state_dict() if not name.startswith("backbone.")}
    assert set(report.copied) == names
    assert not report.skipped
    for name in names:
        assert_close(student.state_dict()[name], teacher.state_dict()[name])
    assert_close(student.backbone.weight, backbone)
    teacher.bbox_head.weight.data.zero_()
    assert student.bbox_head.weight.any()
    assert student.bbox_head.weight.requires_grad
    assert str(report) == f"inherited {len(names)} tensors of neck and head from the teacher"


def test_inherit_reports_what_it_leaves():
    student, teacher = Net(classes=3, deep=True), Net(classes=5)
    before = student.bbox_head.weight.clone()
    report = inherit(student, teacher)
    assert report.skipped == {
        "bbox_head.weight": "shape (5, 2, 1, 1) in the teacher, (3, 2, 1, 1) here",
        "bbox_head.bias": "shape (5,) in the teacher, (3,) here",
        "extra.weight": "the teacher has no such entry",
        "extra.bias": "the teacher has no such entry",
    }
    assert all(name.startswith("neck.") for name in report.copied)
    assert len(report.copied) == 7
    assert_close(student.bbox_head.weight, before)
    assert "left 4 (first: bbox_head.weight" in str(report)
    assert InheritReport(**report.as_dict()) == report


def test_resumable_mmengine_checkpoint_loads(tmp_path):
    """What mmengine's Runner saves to resume from: weights, optimizer, message hub with its history."""
    model, hub = Net(), MessageHub("resume")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    hub.update_scalar("train/loss", torch.tensor(2.0))
    hub.update_scalar("train/loss", 4.0)
    hub.update_info("iter", 3)
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "message_hub": hub.state_dict(),
        "meta": {"iter": 3, "dataset_meta": {"classes": ("a", "b")}},
    }
    torch.save(content, tmp_path / "iter_3.pth")
    loaded = torch.load(tmp_path / "iter_3.pth", weights_only=True)
    history = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert history.mean(2) == 3.0
    assert history.current() == 4.0
    assert loaded["message_hub"]["runtime_info"]["iter"] == 3
    assert_close(load_state(tmp_path / "iter_3.pth"), dict(model.state_dict()))
