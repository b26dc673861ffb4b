"""No file that somebody else may have written is read by what runs code: checkpoints, YAML, archives of arrays."""

from __future__ import annotations

import ast

import pytest

from benchmark.experiment.workspace import ROOT

#: by the module that is named in front: calls that build any object, or unpack without a look at the names
UNSAFE = {
    "pickle": {"load", "loads", "Unpickler"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "pd": {"read_pickle"},
    "yaml": {"full_load", "unsafe_load", "load_all", "full_load_all", "unsafe_load_all"},
}


def is_unsafe(call: ast.Call) -> bool:
    """Whether a call may run what stands in a file."""
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if isinstance(call.func, ast.Name):
        return call.func.id in ("eval", "exec", "compile")
    if not isinstance(call.func, ast.Attribute):
        return False
    owner, name = ast.unparse(call.func.value), call.func.attr
    if (owner, name) == ("torch", "load"):
        return options.get("weights_only") != "True"
    if (owner, name) == ("yaml", "load"):
        # of the settings: a SafeLoader that refuses a key that stands twice
        return [ast.unparse(argument) for argument in call.args[1:]] != ["_UniqueKeys"]
    return name == "extractall" or options.get("allow_pickle") == "True" or name in UNSAFE.get(owner, ())


def unsafe_lines(source: str) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and is_unsafe(node)]


@pytest.mark.parametrize(
    ("line", "unsafe"),
    [
        ("torch.load(path, map_location='cpu', weights_only=True)", False),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("pickle.loads(data)", True),
        ("pickle.dumps(data)", False),
        ("np.load(path)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("yaml.safe_load(text)", False),
        ("yaml.load(text, yaml.Loader)", True),
        ("yaml.load(text, _UniqueKeys)", False),
        ("archive.extractall(folder)", True),
        ("eval(text)", True),
        ("model.eval()", False),
    ],
)
def test_what_is_found(line, unsafe):
    assert bool(unsafe_lines(line)) == unsafe


@pytest.mark.slow
def test_no_file_is_read_by_what_runs_code():
    paths = [path for package in ("benchmark", "pgd", "tools") for path in sorted((ROOT / package).rglob("*.py"))]
    found = {path.relative_to(ROOT).as_posix(): unsafe_lines(path.read_text(encoding="utf-8")) for path in paths}
    assert len(found) > 100
    assert {name: lines for name, lines in found.items() if lines} == {}
