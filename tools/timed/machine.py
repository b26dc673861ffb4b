"""On what, and of what, a measurement of speed is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from benchmark.experiment.workspace import ROOT
from benchmark.training.usage import machine
from tools.timed.parts import version
from tools.timed.switches import cores

#: of /proc/cpuinfo: which of them say that a CPU computes in bfloat16
BF16 = ("avx512_bf16", "amx_bf16", "bf16")
#: processes that wait for a core, by core, from which on a machine is not idle
BUSY = 0.25


def git(*arguments: str) -> str:
    """What git says of this checkout; nothing where there is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def load() -> float | None:
    """Processes that ran or waited for a core, mean of a minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def bf16_flags() -> list[str]:
    """Flags of the CPU that bfloat16 needs to be fast."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return [flag for flag in BF16 if flag in words]


def measured_on() -> dict[str, Any]:
    """Versions, hardware, revision of this checkout and whether files of it are changed, and what else ran."""
    return machine() | {
        "git_revision": git("rev-parse", "--short=12", "HEAD") or None,
        "changed_files": len(git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "hotcoco": version("hotcoco"),
        "cores": cores(),
        "bf16": bf16_flags(),
        "load_before": load(),
    }


def not_idle(found: dict[str, Any]) -> str | None:
    """What is to be said of a machine that had other work; None where it was idle."""
    before = found["load_before"]
    if before is None or before <= BUSY * found["cores"]:
        return None
    return (
        f"the machine was busy before (load {before:g} on {found['cores']} cores): ratios are fair, as variants take "
        "turns, but for threads and processes, and milliseconds are not; measure again when it is idle"
    )
