"""Files are UTF-8 in every locale: names of classes, images and runs are read as they are written."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.coco_tree import NAMES, annotations_of, edit, image_of, write_tree
from support.commands import environment

from benchmark.experiment.workspace import ROOT

#: a locale that is not installed, none, and none without Python's own ways out of it
LOCALES = {
    "missing": {"LC_ALL": "xx_XX.ISO-8859-1"},
    "C": {"LC_ALL": "C"},
    "ASCII alone": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
SETTINGS = """
# für alle
datasets: {bäume: {kind: coco, root: ../küste}}
pairs:
  gfl:
    dataset: bäume
    teacher: {config: benchmark/configs/mini/gfl_r34.py}
    student: {config: benchmark/configs/mini/gfl_r18.py}
runs: {größe: {pair: gfl}}
"""
CLASSES = ["Bär", "熊"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """An experiment with letters of everywhere in its settings, its data and their paths."""
    root = write_tree(tmp_path / "küste")
    image_of(root).rename(image_of(root).with_name("größe 熊.png"))

    def change(content: dict) -> None:
        for category, name in zip(content["categories"], CLASSES, strict=True):
            category["name"] = name

    for split in NAMES:
        edit(annotations_of(root, split), change)
    edit(annotations_of(root), lambda content: content["images"][0].update(file_name="größe 熊.png"))
    for split in NAMES:
        path = annotations_of(root, split)
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding="utf-8")
    (tmp_path / "hier").mkdir()
    (tmp_path / "hier" / "params.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path / "hier"


def call(folder: Path, locale: str, *arguments: str) -> str:
    """What a command says on stdout; it must end well."""
    settings = {k: v for k, v in environment().items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=folder, env=settings | LOCALES[locale], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8")


@pytest.mark.long
@pytest.mark.parametrize("locale", LOCALES)
def test_commands_in_every_locale(folder, locale):
    assert call(folder, locale, "benchmark.plan", "--help").startswith("usage: python -m benchmark.plan")
    assert call(folder, locale, "benchmark.check").startswith("params.yaml: 1 data set, ")
    call(folder, locale, "benchmark.look", "bäume")
    assert "bäume train: 4 images, 10 objects\n" in call(folder, locale, "benchmark.prepare", "bäume")
    info = json.loads((folder / "work" / "dataset" / "bäume" / "dataset.json").read_text(encoding="utf-8"))
    assert info["classes"] == CLASSES
    assert info["train_annotations"] == "../küste/annotations/instances_train2017.json"


@pytest.mark.long
def test_libraries_read_utf8_too(folder):
    """mmdet takes the locale's word for it, and would find no class of these names."""
    (folder / "probe.py").write_text(
        "from benchmark.experiment.cli import take_utf8\n"
        "take_utf8()\n"
        "import json, sys, pgd.plugin\n"
        "from mmdet.datasets import CocoDataset\n"
        "root, classes = sys.argv[1], json.loads(sys.argv[2])\n"
        "file = f'{root}/annotations/instances_train2017.json'\n"
        "found = CocoDataset(ann_file=file, data_prefix={'img': ''}, metainfo={'classes': classes}, pipeline=[])\n"
        "print(sum(len(found.get_data_info(i)['instances']) for i in range(len(found))))\n"
    )
    told = call(folder, "ASCII alone", "probe", "../küste", json.dumps(CLASSES, ensure_ascii=False))
    assert told.splitlines()[-1] == "12"


# ------------------------------------------------------------------------------------------- the sources

#: Files of trainings that write and read ASCII alone; a change of one of these would train everything anew.
ASCII = {
    "benchmark/training/given.py",
    "benchmark/training/hooks.py",
    "benchmark/training/stored.py",
    "pgd/teacher_features.py",
}


def modes(call: ast.Call) -> list[str]:
    """What looks like the mode of a file among the arguments."""
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if text and set(text) <= set("rwaxbt+")]


def is_binary(call: ast.Call) -> bool:
    return any("b" in mode for mode in modes(call))


def without_encoding(source: str) -> list[int]:
    """Lines that read or write text in the locale's encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        # archives and images are opened without a mode
        opens = name == "open" and (isinstance(node.func, ast.Name) or modes(node))
        if (name in ("read_text", "write_text") or opens) and not is_binary(node):
            found += [node.lineno] * all(keyword.arg != "encoding" for keyword in node.keywords)
    return found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("open(path)", True),
        ("path.open('w')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("open(path, 'ab')", False),
        ("path.open('rb' if a else 'r+b')", False),
        ("path.write_bytes(data)", False),
    ],
)
def test_what_is_found(line, found):
    assert bool(without_encoding(line)) == found


@pytest.mark.slow
def test_every_text_file_is_utf8():
    paths = [path for package in ("benchmark", "pgd", "tools") for path in sorted((ROOT / package).rglob("*.py"))]
    names = {path: path.relative_to(ROOT).as_posix() for path in paths}
    found = {names[path]: without_encoding(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: lines for name, lines in found.items() if lines and name not in ASCII} == {}
    assert all(found[name] for name in ASCII), "no exception any more"
