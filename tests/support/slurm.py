"""Tests by a real Slurm, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def slurm_is_there() -> bool:
    """Whether a node waits for jobs (``tools/slurm_here.sh start``)."""
    if shutil.which("sinfo") is None:
        return False
    told = subprocess.run(["sinfo", "-h", "-t", "idle,mix"], capture_output=True, text=True, check=False)
    return bool(told.stdout.strip())


@contextmanager
def node_in(state: str) -> Iterator[None]:
    """The nodes of this Slurm in another state (``down``, ``drain``), then at work again."""
    nodes = subprocess.run(["sinfo", "-h", "-o", "%N"], capture_output=True, text=True, check=True).stdout.strip()
    tell = ["scontrol", "update", f"NodeName={nodes}"]
    subprocess.run([*tell, f"State={state}", "Reason=a test"], check=True)
    try:
        yield
    finally:
        # refused where the node is back already, as it is when its daemon speaks up first
        subprocess.run([*tell, "State=resume"], capture_output=True, check=False)
        until = time.monotonic() + 60
        while not slurm_is_there():
            assert time.monotonic() < until, "the node does not come back"
            time.sleep(0.5)


NEEDS_SLURM = pytest.mark.skipif(not slurm_is_there(), reason="needs a Slurm: sudo bash tools/slurm_here.sh start")
