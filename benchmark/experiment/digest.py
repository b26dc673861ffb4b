"""What code a result depends on: the import closure of modules of this repository, as digests of their syntax.

Nothing is imported for it. An import counts wherever it stands, in a function as well; a name that is loaded by a
folder scan (methods, heads) does not, so that a new method touches nobody else: whoever uses one names it as a root.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from benchmark.experiment.workspace import ROOT

#: the packages of this repository
PACKAGES = ("pgd", "benchmark")
#: Packages whose modules are loaded by scanning the folder.
PLUG_INS = ("pgd.methods", "pgd.heads", "pgd.detectors")
#: What a training goes through but what cannot touch its weights: what makes its config and data, which are digested
#: themselves, who starts it, how it looks, how long it took, and the metric. A later change of the metric leaves the AP
#: in the curves as it was when they were written.
BESIDE_TRAINING = (
    "benchmark.check",
    "benchmark.data",
    "benchmark.experiment",
    "benchmark.look",
    "benchmark.match",
    "benchmark.train",
    "benchmark.training.divergence",
    "benchmark.training.processes",
    "benchmark.training.progress",
    "benchmark.training.result",
    "benchmark.training.resuming",
    "benchmark.training.usage",
    "pgd.scaling",
    "benchmark.probe",
    "pgd.evaluation",
)
#: on which the results of trainings depend
LIBRARIES = ("torch", "torchvision", "mmdet", "mmengine", "numpy")
#: Stages that are no trainings, with the modules that they start from. Trainings are in benchmark/plan.py.
STAGES = {
    "check": ("benchmark.check", "benchmark.experiment.soundness", *PLUG_INS),
    "look": ("benchmark.look",),
    "prepare": ("benchmark.prepare",),
    # it digests the code of all trainings
    "plan": (
        "benchmark.plan",
        "benchmark.train",
        "benchmark.training.dynamics",
        "benchmark.training.grouped",
        "benchmark.training.masks",
        *PLUG_INS,
    ),
    "match": ("benchmark.match",),
    "evaluate": ("benchmark.evaluate",),
    "cost": ("benchmark.cost", *PLUG_INS),
    "key_regions": ("benchmark.key_regions", "pgd.heads", "pgd.detectors"),
    "region_figures": ("benchmark.region_figures",),
    "report": ("benchmark.report",),
    "summary": ("benchmark.summary",),
    "notebooks": ("benchmark.notebooks", *PLUG_INS),
}


@functools.cache
def library_versions() -> dict[str, str]:
    """Of the libraries that results depend on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def file_of(module: str) -> Path | None:
    """The file of a module of this repository; None where there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def code_digest(path: Path) -> str:
    """Hash of a module's code: equal for files that differ in comments, layout or docstrings only."""
    return _digest(path.read_text(encoding="utf-8"))


# Closures of stages and runs share most of their modules: each text is parsed once.
@functools.cache
def _digest(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        # Python 3.12 has it at every class and function: the same code is the same with 3.11
        if not getattr(node, "type_params", True):
            del node.type_params
        body = getattr(node, "body", None)
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not body:
            continue
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


@functools.cache
def imported(source: str) -> frozenset[str]:
    """Modules of this repository that a piece of code imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # what is imported from a package may be a module of it
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name.split(".")[0] in PACKAGES and file_of(name))


def notebook_code(path: Path) -> str:
    """The Python code of a notebook, without IPython's own commands."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def is_in(module: str, packages: Collection[str]) -> bool:
    """Whether a module is one of these modules or packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def closure(roots: Iterable[str], without: Collection[str] = ()) -> dict[str, str]:
    """Digests of ``roots`` and of all that they import, by module name.

    Args:
        roots: modules, or a package of :data:`PLUG_INS` for all modules in it.
        without: modules and packages that are left out, with what only they import.
    """
    todo, found = set(roots), set()
    for package in todo & set(PLUG_INS):
        todo |= {f"{package}.{path.stem}" for path in file_of(package).parent.glob("*.py") if path.stem != "__init__"}
    while todo := {name for name in todo if not is_in(name, without)} - found:
        found |= todo
        files = [file_of(name) for name in todo]
        # a module's packages are imported before it
        packages = {name.rsplit(".", depth)[0] for name in todo for depth in range(1, name.count(".") + 1)}
        todo = packages.union(*(imported(file.read_text(encoding="utf-8")) for file in files))
    return {name: code_digest(file_of(name)) for name in sorted(found)}


def stage_closures() -> dict[str, dict[str, str]]:
    """What each stage of :data:`STAGES` depends on."""
    # commands look their arguments up by name
    found = {stage: closure({*roots, "benchmark.experiment.arguments"}) for stage, roots in STAGES.items()}
    cells = {name for path in sorted((ROOT / "notebooks").glob("*.ipynb")) for name in imported(notebook_code(path))}
    found["notebooks"] |= closure(cells)
    return found
