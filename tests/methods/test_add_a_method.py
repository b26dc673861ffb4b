"""docs/add-a-method.md, followed to the letter: its file, dropped into the folder of methods, is all that is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.experiment.workspace import ROOT

PAGE = ROOT / "docs" / "add-a-method.md"

#: in a process of its own: the registry of this one stays as it is
SCRIPT = """
import json, sys
import pgd
from mmdet.registry import MODELS
from benchmark import smoke, tune
from benchmark.experiment.workspace import ROOT
from benchmark.methods import refusal, row, DETECTORS
from benchmark.experiment.settings import load
from benchmark.experiment.soundness import check_run
from benchmark.plan import sources
from support.detectors import batch, pair
params = load("params.yaml")
check_run("energy", params)
losses = {}
for name in DETECTORS:
    model = pair(name, method="energy", weight=0.5)
    found = model.loss(*batch())
    found["loss_energy"].backward()
    moved = any(p.grad is not None and p.grad.any() for p in model.student.neck.parameters())
    losses[name] = [found["loss_energy"].item(), bool(moved)]
print(json.dumps({
    "where": pgd.__file__,
    "row": row("energy"),
    "losses": losses,
    "trials": len(tune.weights(["energy"], params, "gfl")),
    "code": sorted(sources({MODELS.get("GFLHead")}, params.runs["energy"])),
}))
"""


def example() -> str:
    """The Python file that the page shows."""
    return re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict:
    """What a copy of the library with this file says."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("pgd", "benchmark"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results", "work"))
    (folder / "pgd" / "methods" / "energy.py").write_text(example())
    run = re.search(r"```yaml\nruns:\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text().rstrip() + "\n" + run)
    paths = [str(folder), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path[:0] = {paths!r}\n{SCRIPT}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_one_file_is_all(outcome):
    assert Path(outcome["where"]).parents[1] != ROOT, "the copy was used"
    assert outcome["row"][0] == "`energy`"
    assert outcome["row"][3:] == ["neck", "none", "all"]
    assert all(value > 0 and moved for value, moved in outcome["losses"].values())
    assert len(outcome["losses"]) == 7
    assert outcome["trials"] == 9, "eight weights and the plain student"
    assert "pgd.methods.energy" in outcome["code"]
    assert "pgd.methods.fgd" not in outcome["code"]


def test_the_page_names_what_exists():
    text = PAGE.read_text()
    from pgd.methods.base import NEEDS

    assert all(f"`{need}`" in text for need in NEEDS)
    for module in re.findall(r"python -m (benchmark\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    for link in re.findall(r"\]\(([\w./-]+\.md)\)", text):
        assert (PAGE.parent / link).is_file()
