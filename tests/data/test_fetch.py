"""The command that fetches data sets, on small stand-ins for them; and unpacking what is not to be trusted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest
from support.crowd_tree import tree as crowd_tree  # noqa: F401  a fixture
from support.file_server import Site, serve

from benchmark import fetch as command
from benchmark.data import crowdhuman, download
from benchmark.data.faults import DataError
from benchmark.data.unzip import File, listing, unpack
from benchmark.experiment.workspace import file_digest


def zipped(content: dict[str, bytes], kind: int = stat.S_IFREG) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, data)
    return out.getvalue()


COCO = {
    "annotations/annotations_trainval2017.zip": zipped({"annotations/instances_val2017.json": b"{}"}),
    "zips/val2017.zip": zipped({"val2017/1.jpg": b"one", "val2017/2.jpg": b"two"}),
    "zips/train2017.zip": zipped({"train2017/3.jpg": b"three"}),
}
FILES = ["annotations/instances_val2017.json", "train2017/3.jpg", "val2017/1.jpg", "val2017/2.jpg"]


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    facts = {path: (len(data), hashlib.md5(data).hexdigest()) for path, data in COCO.items()}
    monkeypatch.setattr(command, "COCO_FILES", facts)
    with serve(Site({f"/{path}": data for path, data in COCO.items()})) as running:
        yield running


def call(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch", *map(str, arguments)])
    command.main()


def test_coco(site, tmp_path, monkeypatch, capsys):
    call(monkeypatch, "coco", "--root", tmp_path, "--mirror", f"{site.address}/")
    receipts = [f"{Path(path).name}.json" for path in COCO]
    assert tree(tmp_path) == sorted([*FILES, *receipts])
    call(monkeypatch, "coco", "--root", tmp_path, "--mirror", site.address)
    assert len(site.asked) == 3, "nothing is fetched again"
    assert capsys.readouterr().out.endswith("train2017.zip: was there\n")
    call(monkeypatch, "coco", "--root", tmp_path, "--check")
    assert "val2017.zip: 2 of 2 files are right" in capsys.readouterr().out
    assert len(site.asked) == 3


def test_coco_mends_what_is_gone(site, tmp_path):
    command.fetch_coco(tmp_path, site.address, keep=True)
    (tmp_path / "val2017" / "1.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 files are missing or wrong \(val2017/1\.jpg: missing\).*fetches what is not"
    ):
        command.check_coco(tmp_path)
    command.fetch_coco(tmp_path, site.address)
    assert len(site.asked) == 3, "the kept archive serves"
    command.check_coco(tmp_path)


def test_coco_leaves_other_files_alone(site, tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "1.jpg").write_text("mine")
    with pytest.raises(DataError, match=r"1 files stand in the way \(first: val2017/1\.jpg \(4 bytes instead of 3\)\)"):
        command.fetch_coco(tmp_path, site.address)
    assert (tmp_path / "val2017" / "1.jpg").read_text() == "mine"


def test_check_sees_another_content(site, tmp_path):
    command.fetch_coco(tmp_path, site.address)
    (tmp_path / "val2017" / "2.jpg").write_bytes(b"owt")
    with pytest.raises(DataError, match=r"val2017/2\.jpg: of another content"):
        command.check_coco(tmp_path)


def test_check_fetches_nothing(site, tmp_path):
    with pytest.raises(DataError, match=r"3 files are missing or wrong .*not unpacked here by this command"):
        command.check_coco(tmp_path)
    assert site.asked == []


BCCD = {"LICENSE": b"MIT", "BCCD/JPEGImages/a.jpg": b"picture"}


@pytest.fixture
def bccd(site, tmp_path, monkeypatch):
    """A stand-in for BCCD at a commit, with a file more than its manifest names."""
    files = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in BCCD.items()}
    known = {"repository": "o/Set", "commit": "c" * 40, "licence": "MIT", "files": files}
    (tmp_path / "bccd.json").write_text(json.dumps(known))
    monkeypatch.setattr(command, "BCCD", tmp_path / "bccd.json")
    inside = {f"Set-{'c' * 40}/{name}": data for name, data in {**BCCD, "plot.py": b"import os"}.items()}
    site.files[f"/o/Set/archive/{'c' * 40}.zip"] = zipped(inside)
    return tmp_path / "bccd"


def test_bccd(site, bccd):
    command.fetch_bccd(bccd, site.address)
    assert tree(bccd) == sorted(BCCD)
    command.check_bccd(bccd)
    command.fetch_bccd(bccd, site.address)
    assert len(site.asked) == 1


def test_bccd_with_another_file(site, bccd):
    other = {f"Set-{'c' * 40}/{name}": data[::-1] for name, data in BCCD.items()}
    site.files[f"/o/Set/archive/{'c' * 40}.zip"] = zipped(other)
    with pytest.raises(DataError, match=r"'Set-c+/LICENSE' is another file than published \(sha256 "):
        command.fetch_bccd(bccd, site.address)
    assert tree(bccd) == []


def test_the_manifest_of_bccd():
    """364 images, their annotations, four lists, and three files at the top: facts of the published commit."""
    known, files = command.bccd_files()
    assert known["commit"] == "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
    assert sum(file.name.startswith("BCCD/JPEGImages/") for file in files) == 364
    assert sum(file.name.startswith("BCCD/Annotations/") for file in files) == 364
    assert len(files) == 364 * 2 + 4 + 3


def test_crowdhuman_is_checked_and_never_fetched(crowd_tree, monkeypatch, capsys):  # noqa: F811
    root = crowd_tree
    known = {
        split: crowdhuman.Published(file_digest(root / f"annotation_{split}.odgt"), 0) for split in crowdhuman.PUBLISHED
    }
    with pytest.raises(DataError, match=r"annotation_train\.odgt: not the published file"):
        call(monkeypatch, "crowdhuman", "--root", root)
    monkeypatch.setattr(crowdhuman, "PUBLISHED", known)
    call(monkeypatch, "crowdhuman", "--root", root)
    assert "annotation_val.odgt: as published; 2 of 2 images are there" in capsys.readouterr().out
    (root / "CrowdHuman_val.zip").write_bytes(b"half")
    next((root / "Images").iterdir()).unlink()
    with pytest.raises(DataError, match=r"2 files are missing or wrong .*CrowdHuman is never downloaded here"):
        call(monkeypatch, "crowdhuman", "--root", root)


UNSAFE = {
    "up": ({"../a": b"1"}, stat.S_IFREG, "'../a' leads out of the folder"),
    "absolute": ({"/etc/a": b"1"}, stat.S_IFREG, "'/etc/a' leads out of the folder"),
    "backslash": ({"a\\..\\b": b"1"}, stat.S_IFREG, "leads out of the folder"),
    "link": ({"a": b"/etc/passwd"}, stat.S_IFLNK, "'a' is a link or encrypted"),
    "device": ({"a": b""}, stat.S_IFCHR, "'a' is a link or encrypted"),
    "large": ({"a": bytes(2000)}, stat.S_IFREG, "2000 bytes unpacked, more than the 1000"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_archives_that_are_not_unpacked(tmp_path, case):
    content, kind, said = UNSAFE[case]
    (tmp_path / "a.zip").write_bytes(zipped(content, kind))
    with pytest.raises(DataError) as caught:
        listing(tmp_path / "a.zip", 1000)
    assert said in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(DataError, match="'a' stands twice"):
        listing(tmp_path / "a.zip", 1000)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-30], lambda data: b"<html>", lambda data: data[:40] + b"?" + data[41:]]
)
def test_damaged_archives(tmp_path, spoil):
    data = zipped({"folder/picture.jpg": bytes(range(200))})
    (tmp_path / "a.zip").write_bytes(data)
    files = listing(tmp_path / "a.zip", 1000)
    (tmp_path / "a.zip").write_bytes(spoil(data))
    with pytest.raises(DataError, match=r"a\.zip: (damaged|.* is not in it)"):
        unpack(tmp_path / "a.zip", tmp_path / "out", files)
    assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == []


def test_a_killed_unpacking_goes_on(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"a": b"1", "b": b"2"}))
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b.partial").write_bytes(b"")
    os.utime(tmp_path / "a", ns=(1, 1))
    unpack(tmp_path / "a.zip", tmp_path, listing(tmp_path / "a.zip", 1000))
    assert (tmp_path / "b").read_bytes() == b"2"
    assert (tmp_path / "a").stat().st_mtime_ns == 1, "what is right is left alone"
    assert not (tmp_path / "b.partial").exists()


def test_a_file_that_an_archive_lacks(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"a": b"1"}))
    with pytest.raises(DataError, match="'b' is not in it as published"):
        unpack(tmp_path / "a.zip", tmp_path, [File("b", 1, "sha256", "0" * 64)])
