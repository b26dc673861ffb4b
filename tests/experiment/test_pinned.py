"""What `dvc pull` is documented to bring is in the repository's own remote, for the lock files that are committed."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmark.experiment.workspace import ROOT

#: the trained teachers of docs/dvc.md, by the folder of their experiment
TEACHERS = [
    (".", "gfl"),
    ("experiments/study", "gfl"),
    ("experiments/study", "fcos"),
    ("experiments/real", "bccd"),
    ("experiments/real", "cards-lite"),
]


def stored(digest: str) -> Path:
    """The file of the remote with this digest."""
    return ROOT / "pinned" / "files" / "md5" / digest[:2] / digest[2:]


@pytest.mark.parametrize(("folder", "pair"), TEACHERS)
def test_a_pinned_teacher_is_the_one_that_the_lock_names(folder, pair):
    lock = yaml.safe_load((ROOT / folder / "dvc.lock").read_text(encoding="utf-8"))
    (out,) = lock["stages"][f"teacher@{pair}"]["outs"]
    listing = stored(out["md5"])
    assert listing.exists(), f"teacher@{pair} was trained anew and not pushed: `dvc push teacher@{pair}` in {folder}"
    missing = [entry["relpath"] for entry in json.loads(listing.read_text()) if not stored(entry["md5"]).exists()]
    assert missing == []


def test_the_remote_keeps_nothing_that_no_lock_names():
    named: set[str] = set()
    locks = [ROOT / folder / "dvc.lock" for folder in sorted({folder for folder, _ in TEACHERS})]
    outs = [o for lock in locks for s in yaml.safe_load(lock.read_text())["stages"].values() for o in s.get("outs", [])]
    outs += [o for file in ROOT.glob("?*.dvc") for o in yaml.safe_load(file.read_text())["outs"]]
    for out in outs:
        listing = stored(out.get("md5", "none"))
        if listing.exists():
            named.add(out["md5"])
            if out["md5"].endswith(".dir"):
                named |= {entry["md5"] for entry in json.loads(listing.read_text())}
    listed = subprocess.run(["git", "ls-files", "pinned"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone: what is committed cannot be told from what was pushed here")
    kept = {path.parent.name + path.name for path in map(Path, listed.stdout.split())}
    assert kept - named == set()
