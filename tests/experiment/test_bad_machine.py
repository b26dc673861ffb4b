"""What a machine may do to a command: forbid it to write, kill it, run another beside it, turn its clock back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.coco_tree import image_of, write_image, write_tree
from support.commands import environment
from support.report_tree import build, run_report

from benchmark.data.image_sizes import look
from benchmark.experiment.cli import run_cli

REMEDY = "let this user read and write there (chmod, chown), or run it elsewhere"


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------- no right to write


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_no_right_is_one_line(capsys, number):
    def main() -> None:
        raise OSError(number, os.strerror(number), "results/table.csv")

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: results/table.csv: {os.strerror(number)}; {REMEDY}\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_one_line(capsys, number):
    def main() -> None:
        raise OSError(number, os.strerror(number), "results/table.csv")

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    assert stop.value.code == 1
    remedy = "make room and run the same command again, what was written before is kept"
    assert capsys.readouterr().err == f"error: results/table.csv: {os.strerror(number)}; {remedy}\n"


def test_other_errors_of_the_system_are_not_hidden():
    def main() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "results/table.csv")

    with pytest.raises(OSError, match="Input/output error"):
        run_cli(main)


@pytest.mark.slow
def test_a_report_into_a_read_only_folder(tmp_path, monkeypatch, capsys):
    """Made by hand, as modes of files do not stop a privileged user."""
    build(tmp_path, seeds=1)
    run_report(tmp_path)
    before = state_of(tmp_path)

    def read_only(path: Path, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(SystemExit) as stop:
        run_report(tmp_path)
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told == f"error: {tmp_path / 'results' / 'table.csv'}.partial: Read-only file system; {REMEDY}\n"
    assert state_of(tmp_path) == before


# ------------------------------------------------------------------------------------------- an interrupted report

#: a report that is killed when half of its n-th file is written
KILLED = """
import os, signal, sys
from pathlib import Path
from benchmark import report
whole, left = Path.write_bytes, int(sys.argv[1])
def cut(path, data):
    global left
    left -= 1
    if not left:
        whole(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, data)
Path.write_bytes = cut
report.main(sys.argv[2:])
"""


@pytest.mark.long
def test_a_killed_report_leaves_whole_files(tmp_path):
    """Each is the old one or the new one, and the same command finishes it."""
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    build(root, seeds=1)
    run_report(root)
    old = state_of(root / "results")
    record = root / "results" / "runs" / "pgd-0.json"
    content = json.loads(record.read_text())
    content["accuracy"]["AP"] += 6
    record.write_text(json.dumps(content))
    shutil.copytree(root, other)
    run_report(other)
    new = state_of(other / "results")
    changed = {name for name in new if old[name] != new[name]}
    assert {"table.csv", "table.md", "metrics.json", "report.html", "figures/ap.png"} <= changed
    arguments = [f"--{name}={root / name}" for name in ("results", "work")] + [f"--params={root / 'params.yaml'}"]
    for count in (2, len(changed)):
        command = [sys.executable, "-c", KILLED, str(count), *arguments]
        assert subprocess.run(command, env=environment(), check=False, capture_output=True).returncode == -9
        left = state_of(root / "results")
        assert len([name for name in left if name.endswith(".partial")]) == 1
        assert all(left[name] in (old[name], new[name]) for name in new)
    run_report(root)
    assert state_of(root / "results") == new, "and nothing half is left"


# ------------------------------------------------------------------------------------------- two at once

PIPELINE = """
stages:
  train:
    cmd: "touch started; while [ ! -e go ]; do sleep 0.1; done; date +%s.%N > out"
    outs: [out]
  report:
    cmd: cp out last
    deps: [out]
    outs: [last]
"""
DVC = [sys.executable, "-m", "dvc"]


@pytest.mark.slow
def test_two_dvc_repro_at_once(tmp_path):
    """The second one says who is at work and ends; the first one loses nothing by it."""
    settings = {**environment(), "DVC_NO_ANALYTICS": "1"}
    for command in (["git", "init", "-q"], [*DVC, "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, env=settings)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen([*DVC, "repro"], cwd=tmp_path, env=settings, **pipes)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "started").exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        second = subprocess.run([*DVC, "repro"], cwd=tmp_path, env=settings, check=False, **pipes)
        assert second.returncode != 0
        assert "failed to reproduce 'train'" in second.stdout
        assert f"is busy, it is being blocked by:\n  (PID {first.pid}): " in second.stdout
        assert "Traceback" not in second.stdout
        assert not (tmp_path / "out").exists()
    finally:
        (tmp_path / "go").touch()
        told, _ = first.communicate(timeout=120)
    assert first.returncode == 0, told
    assert (tmp_path / "last").read_text() == (tmp_path / "out").read_text()
    third = subprocess.run([*DVC, "repro"], cwd=tmp_path, env=settings, check=True, **pipes)
    assert third.stdout.splitlines()[-1] == "Data and pipelines are up to date."


# ------------------------------------------------------------------------------------------- a clock that goes back

FUTURE, PAST = 4_000_000_000, 400_000_000


def test_dates_of_images_may_be_anything(tmp_path):
    """What was seen of an image holds as long as its date is the same one, be it in the future."""
    root = write_tree(tmp_path / "coco")
    images, caches = {"a": image_of(root)}, [tmp_path / "sizes.json"]
    os.utime(image_of(root), (FUTURE, FUTURE))
    first = look(images, caches)
    assert look(images, caches) == first
    # the clock was put right, and then the image was written anew
    write_image(image_of(root), (30, 20))
    os.utime(image_of(root), (PAST, PAST))
    headers, problems = look(images, caches)
    assert (headers["a"].size, problems) == ((30, 20), {})
