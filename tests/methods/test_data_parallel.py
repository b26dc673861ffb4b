"""Two processes with half of the images each against one with all: what data parallel training makes of a method.

Gradients are averaged, so that losses that are means over images come out the same, and so does what is divided by a
count that goes through ``reduce_mean``. The rest is listed with its reason: published as it is, but the figures of such
a method depend on how many images a GPU takes, and not on the batch alone. The file of each says what it is.
"""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

import pytest
import torch
from support.detectors import QUIET
from support.parallel import ALL_BOXES, APART, CLOSE, PROCESSES, TOGETHER, Step, step, terms_of, unlike, work
from support.served import METHOD_NAMES
from torch import multiprocessing

from pgd.methods import METHODS

pytestmark = [QUIET, pytest.mark.long]


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> dict[str, Step]:
    """What two processes find, by method; they start once for all."""
    folder = tmp_path_factory.mktemp("parallel")
    multiprocessing.start_processes(work, args=(METHOD_NAMES, str(folder)), nprocs=PROCESSES, start_method="spawn")
    return {name: Step(**torch.load(Path(folder) / f"{name}.pth", weights_only=True)) for name in METHOD_NAMES}


@functools.cache
def whole(method: str) -> Step:
    """What one process finds."""
    return step(method, 0, len(ALL_BOXES))


def test_the_table_is_of_methods_that_there_are():
    assert set(APART) < set(METHOD_NAMES)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_two_processes_make_the_step_of_one(parallel, method):
    losses = unlike(parallel[method].losses, whole(method).losses)
    gradients = unlike(parallel[method].gradients, whole(method).gradients)
    # the detector's own are means over all processes, whatever the method
    assert all(name.startswith(terms_of(method)) for name in losses)
    if method not in APART:
        assert losses == gradients == []
    else:
        assert losses or gradients, f"not apart after all: {APART[method]}"


def test_sums_of_ld_grow_with_the_images(parallel):
    """The mean over processes is a share of the whole's."""
    for name in ("loss_ld", "loss_ld_vlr"):
        torch.testing.assert_close(PROCESSES * parallel["ld"].losses[name], whole("ld").losses[name], **CLOSE)


@pytest.mark.parametrize("method", TOGETHER)
def test_some_terms_of_these_add_up(parallel, method):
    """PGD's is apart in its regression alone, for one."""
    terms = {name for name in whole(method).losses if name.startswith(terms_of(method))}
    # its positives are counted by all processes together, and only then at least 1, as is the sum of its small scores
    counted = {"loss_cskd_assistant_cls"}
    assert set(unlike(parallel[method].losses, whole(method).losses)) == terms - counted - set(TOGETHER[method])


def test_the_file_of_each_says_so():
    """What a process or GPU sees, in words."""
    for name in APART:
        text = sys.modules[METHODS.get(name).__module__].__doc__
        assert re.search(r"one\s+GPU|GPU\s+alone|on\s+a\s+GPU", text), f"{name}: what is it divided by?"
