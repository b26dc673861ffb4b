"""Two processes with half of the images each against one with all: what data parallel training makes of a method.

Gradients are averaged, so that losses that are means over images come out the same, and so does what is divided by a
count that goes through ``reduce_mean``. The rest is listed with its reason: published as it is, but the figures of such
a method depend on how many images a GPU takes, and not on the batch alone.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from support.detectors import QUIET
from support.parallel import ALL_BOXES, PROCESSES, Step, step, work
from support.served import METHOD_NAMES
from torch import multiprocessing

pytestmark = [QUIET, pytest.mark.slow]
#: what single precision leaves equal
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
#: why half batches do not add up to a whole one, by method
APART = {
    "bckd": "a level on which one process has no positive is left out there",
    "cankd": "batch norms take the statistics of one process",
    "crosskd": "features are standardised over the images of one process",
    "cskd": "cells of objects and background are counted in one process, and so are instances",
    "defeat": "cells of objects and background are counted in one process",
    "detkds": "relations are those among the images of one process",
    "dist": "a class correlates over the positions of one process's images",
    "fgfi": "chosen positions are counted in one process",
    "fkd": "roots are of sums over one process's images",
    "frs": "sums of richness are those of one process",
    "gid": "instances, and their mean distance, are those of one process",
    "icd": "objects are counted in one process",
    "ld": "sums over positions grow with the images of a process",
    "pcka": "patches are alike over the images of one process, side by side",
    "pgd": "L_reg is divided by the key positions of one process",
    "pgd_released": "as pgd, and its faults mix the images of one process",
    "pkd": "features are standardised over the images of one process",
}


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> dict[str, Step]:
    """What two processes find, by method; they start once for all."""
    folder = tmp_path_factory.mktemp("parallel")
    multiprocessing.start_processes(work, args=(METHOD_NAMES, str(folder)), nprocs=PROCESSES, start_method="spawn")
    return {name: Step(**torch.load(Path(folder) / f"{name}.pth", weights_only=True)) for name in METHOD_NAMES}


@functools.cache
def whole(method: str) -> Step:
    """What one process finds."""
    return step(method, 0, len(ALL_BOXES), parallel=False)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Up to rounding, by the whole tensor's size."""
    return bool((a - b).norm() <= CLOSE["atol"] + CLOSE["rtol"] * b.norm())


def unlike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    assert ours.keys() == theirs.keys()
    return [name for name, value in theirs.items() if not close(ours[name], value)]


def test_the_table_is_of_methods_that_there_are():
    assert set(APART) < set(METHOD_NAMES)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_two_processes_make_the_step_of_one(parallel, method):
    losses = unlike(parallel[method].losses, whole(method).losses)
    gradients = unlike(parallel[method].gradients, whole(method).gradients)
    # the detector's own are means over all processes, whatever the method
    assert all(name.startswith(f"loss_{method.removesuffix('_released')}") for name in losses)
    if method not in APART:
        assert losses == gradients == []
    else:
        assert losses or gradients, f"not apart after all: {APART[method]}"


def test_sums_of_ld_grow_with_the_images(parallel):
    """The mean over processes is a share of the whole's."""
    for name in ("loss_ld", "loss_ld_vlr"):
        torch.testing.assert_close(PROCESSES * parallel["ld"].losses[name], whole("ld").losses[name], **CLOSE)


def test_pgd_is_apart_in_its_regression_alone(parallel):
    assert unlike(parallel["pgd"].losses, whole("pgd").losses) == ["loss_pgd_reg"]
