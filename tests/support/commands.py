"""Commands of this repository in processes of their own."""

from __future__ import annotations

import os

from benchmark.experiment.workspace import ROOT


def environment() -> dict[str, str]:
    """That of a command which finds this repository, with one thread: their number is part of what is computed."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
