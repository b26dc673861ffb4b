"""``import pgd`` changes nothing; ``import pgd.plugin`` is the door to mmdet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.marks import long_but

#: What an import may change in the process, before and after.
STATE = """
import json, sys, warnings

def state():
    return {
        "modules": sorted(sys.modules),
        "blocked": [name for name, module in sys.modules.items() if module is None],
        "filters": [repr(entry) for entry in warnings.filters],
        "path": list(sys.path),
        "hooks": [repr(hook) for hook in (*sys.meta_path, *sys.path_hooks)],
    }

before = state()
"""
CONFIG = 'custom_imports = dict(imports=["{}"])\nmodel = dict(type="Distiller")\n'
LOOK_UP = """
import sys, warnings
from mmengine.config import Config
Config.fromfile(sys.argv[1])
from mmdet.registry import MODELS
print(MODELS.get("Distiller").__module__)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, which must end well."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def light() -> dict:
    """The process before and after ``import pgd``."""
    return json.loads(python(f"{STATE}\nimport pgd\nprint(json.dumps([before, state()]))").stdout)


@pytest.mark.parametrize("what", ["blocked", "filters", "path", "hooks"])
def test_import_changes_nothing(light, what):
    before, after = light
    assert after[what] == before[what]


def test_import_takes_itself_alone(light):
    before, after = light
    taken = {name.partition(".")[0] for name in set(after["modules"]) - set(before["modules"])}
    assert taken - set(sys.stdlib_module_names) == {"pgd"}


@pytest.mark.long
def test_safe_globals_are_the_plugins():
    code = """
import torch
from mmengine.logging import HistoryBuffer
for name in ("pgd", "pgd.methods", "pgd.plugin"):
    __import__(name)
    print(name, HistoryBuffer in torch.serialization.get_safe_globals())
"""
    assert python(code).stdout.splitlines() == ["pgd False", "pgd.methods False", "pgd.plugin True"]


@pytest.mark.slow
def test_without_mmdet():
    """What needs no detector neither imports mmdet nor serves its operators."""
    code = """
import sys
for name in sys.argv[1:]:
    __import__(name)
    print(name, *(other for other in ("mmdet", "mmcv", "mmcv._ext") if other in sys.modules))
"""
    modules = ["pgd.maths.masks", "pgd.evaluation", "pgd.evaluation.crowdhuman", "pgd.tape", "pgd.methods"]
    assert python(code, *modules).stdout.splitlines() == modules


@pytest.mark.slow
@pytest.mark.parametrize("module", long_but("pgd.heads".__eq__, ["pgd.distiller", "pgd.heads", "pgd.detectors"]))
def test_stands_alone(module):
    """A module that needs mmdet sees to mmcv's operators, whatever is imported first."""
    python(f"import {module}")


@pytest.mark.long
def test_plugin_registers_everything():
    code = """
import pgd.plugin
from mmdet.registry import METRICS, MODELS, TASK_UTILS
from pgd.dense import served_heads
found = {
    "models": [name for name in ("Distiller", "ATSSIoUHead") if MODELS.get(name).__module__.startswith("pgd.")],
    "tasks": TASK_UTILS.get("CostTopKAssigner").__module__,
    "metrics": [METRICS.get(name).__module__ for name in ("CocoBoxes", "CrowdHumanBoxes")],
    "readers": bool(served_heads()),
}
import json, sys
print(json.dumps([found, [name for name, module in sys.modules.items() if module is None]]))
"""
    found, blocked = json.loads(python(code).stdout)
    assert found == {
        "models": ["Distiller", "ATSSIoUHead"],
        "tasks": "pgd.detectors.ddod",
        "metrics": ["pgd.evaluation.coco", "pgd.evaluation.crowdhuman"],
        "readers": True,
    }
    assert "seaborn" not in blocked


def config(folder: Path, module: str) -> str:
    path = folder / "config.py"
    path.write_text(CONFIG.format(module))
    return str(path)


@pytest.mark.long
def test_config_names_the_plugin(tmp_path):
    done = python(LOOK_UP, config(tmp_path, "pgd.plugin"))
    assert done.stdout.strip() == "pgd.distiller"
    assert "old spelling" not in done.stderr


@pytest.mark.long
def test_old_spelling_works_with_a_hint(tmp_path):
    done = python(LOOK_UP, config(tmp_path, "pgd"))
    assert done.stdout.strip() == "pgd.distiller"
    assert 'write imports=["pgd.plugin"]' in done.stderr


@pytest.mark.long
def test_names_are_looked_up_when_asked_for():
    code = "import pgd\nprint(*(getattr(pgd, name).__name__ for name in pgd.__all__[2:]))"
    assert python(code).stdout.split() == ["CocoBoxes", "CrowdHumanBoxes", "Distiller", "Method"]


def test_unknown_name():
    code = "import pgd\ntry:\n    pgd.Distill\nexcept AttributeError as error:\n    print(error)"
    assert "has no attribute 'Distill'" in python(code).stdout
