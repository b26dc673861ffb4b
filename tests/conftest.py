"""Shared ground: the COCO sample, a dozen mini images on disk, and small worlds to run stages in."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.worlds import World

    from benchmark.experiment.config import DatasetInfo


def pytest_collection(session: pytest.Session) -> None:
    """What all tests stand on, in the processes that run them: with ``-n`` the one that deals them out loads nothing,
    which would take ten seconds before the others begin."""
    if session.config.getoption("numprocesses", None):
        return
    import submitit  # noqa: F401  configures logging when first imported, which closes the log files of any Runner by then
    import torch

    import benchmark.training.draws  # noqa: F401  registers what trainings draw by
    import pgd.plugin  # noqa: F401  registers with mmdet
    from benchmark.experiment.quiet import keep_imports, skip_config_formatting

    torch.set_num_threads(1)
    skip_config_formatting()
    keep_imports()


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """A folder in COCO's own layout with some real images."""
    beside = Path(__file__).parents[2] / "shared" / "coco-sample"
    path = Path(os.environ.get("PGD_COCO_SAMPLE", beside))
    if not (path / "annotations").is_dir():
        pytest.skip("no COCO sample; name one by PGD_COCO_SAMPLE")
    return path


@pytest.fixture(scope="session")
def coco_weights() -> Path:
    """A folder with weights of detectors that were trained on COCO."""
    beside = Path(__file__).parents[2] / "shared" / "weights"
    path = Path(os.environ.get("PGD_COCO_WEIGHTS", beside))
    if not path.is_dir():
        pytest.skip("no weights of COCO; name their folder by PGD_COCO_WEIGHTS")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> DatasetInfo:
    """The first images of minicoco, written as a COCO-format set."""
    from support.worlds import write_tiny_data

    return write_tiny_data(tmp_path_factory.mktemp("tiny_data"))


@pytest.fixture
def tiny_world(tmp_path, tiny_data, monkeypatch) -> World:
    """An empty world to stand in."""
    from support.worlds import World

    monkeypatch.chdir(tmp_path)
    return World(tmp_path, tiny_data)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory, tiny_data) -> Path:
    """work/teachers/gfl of a teacher that was trained for two iterations and evaluated."""
    from support.worlds import World

    from benchmark.experiment.settings import TEACHER

    folder = tmp_path_factory.mktemp("teacher")
    world = World(folder, tiny_data)
    with contextlib.chdir(folder):
        params = world.settle()
        world.train(params, TEACHER)
        world.evaluate(params, TEACHER)
    return world.space.teacher("gfl")


@pytest.fixture
def taught_world(tiny_world, teacher_folder) -> World:
    """A world that has a trained teacher."""
    from benchmark.experiment.workspace import Workspace

    theirs, own = Workspace(teacher_folder.parents[2]), tiny_world.space
    shutil.copytree(theirs.teacher("gfl"), own.teacher("gfl"))
    shutil.copytree(theirs.teacher_metrics("gfl").parent, own.teacher_metrics("gfl").parent)
    return tiny_world


#: all in here are marked ``cuda`` and skipped where there is no device
CUDA_TESTS = Path(__file__).parent / "cuda"
#: names of the properties of tests that end up behind the results: a line, a number under a name
NOTE, FIGURE = "note", "figure: "


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch
    from support.detectors import ALL

    missing = pytest.mark.skip(reason="torch sees no CUDA device")
    for item in items:
        # of a test on every detector the quick ones take GFL
        chosen = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if chosen in ALL and chosen != "gfl":
            item.add_marker(pytest.mark.slow)
        if CUDA_TESTS in item.path.parents:
            item.add_marker(pytest.mark.cuda)
            if not torch.cuda.is_available():
                item.add_marker(missing)


def pytest_terminal_summary(terminalreporter) -> None:
    """Figures that tests report and do not demand."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    properties = [(name, value) for r in reports for name, value in r.user_properties]
    for line in sorted({value for name, value in properties if name == NOTE}):
        terminalreporter.write_line(line)
    for kind in sorted({name for name, _ in properties if name.startswith(FIGURE)}):
        values = [value for name, value in properties if name == kind]
        line = f"{len(values)} tests, median {median(values):.1e}, largest {max(values):.1e}"
        terminalreporter.write_line(f"{kind.removeprefix(FIGURE)}: {line}")


@pytest.fixture
def note(record_property):
    """Leave a line for the summary."""
    return lambda line: record_property(NOTE, line)


@pytest.fixture
def figure(record_property):
    """Leave a number under a name; the summary has median and largest of all tests."""
    return lambda name, value: record_property(FIGURE + name, float(value))


@pytest.fixture
def full_precision():
    """Products and convolutions of float32 in float32, the same kernels every time."""
    from torch import backends

    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = backends.cudnn.benchmark = False
    yield
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark = before
