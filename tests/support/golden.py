"""Reading and comparing the values that the authors' released code gives (tests/data/golden)."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch

from benchmark.experiment.workspace import ROOT

GOLDEN = ROOT / "tests" / "golden"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def load(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The settings and the arrays of one archive."""
    with np.load(GOLDEN / f"{name}.npz") as archive:
        arrays = {k: torch.from_numpy(np.asarray(archive[k])) for k in archive.files if k != "meta"}
        return json.loads(str(archive["meta"])), arrays


def value_and_grad(loss: Callable, student: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    student = student.clone().requires_grad_()
    value = loss(student)
    value.backward()
    return value.detach(), student.grad


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected.double().reshape(actual.shape), **CLOSE)
