"""torch.compile of a student's convolutions: what it is worth, in a process of its own.

On a CPU it writes C++, so it needs a compiler and Python's headers; it takes minutes, and may fail in new ways with
every version of torch. So it has a process that can be ended, and where there is no figure there is a sentence why.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tools.timed.bench import Bench, begin, first_loss, listed
from tools.timed.children import ended, started
from tools.timed.turns import in_turns, spreads, times_faster

LITERAL, COMPILED = "literal", "torch.compile"
#: what torch looks for, unless the variable CXX names one
COMPILERS = ("g++", "clang++", "c++")
ANSWER = ("-c", "from tools.timed.compiled import answer; answer()")


def lacking() -> str | None:
    """What torch.compile lacks on this machine; None where it can be tried."""
    names = (os.environ["CXX"],) if "CXX" in os.environ else COMPILERS
    if not any(map(shutil.which, names)):
        return f"no C++ compiler ({', '.join(names)})"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.is_file() else f"no {header}"


def measure(bench: Bench) -> dict[str, Any]:
    """The literal step and the same with backbone and neck compiled, in turns.

    Compiling takes less than it says where torch's cache has what an earlier measurement has compiled.
    """
    plain, model = bench.student()
    quick, other = bench.student()
    other.student.extract_feat = torch.compile(other.student.extract_feat)
    batch = listed(bench.batches[0])
    expected, start = first_loss(model, batch), time.perf_counter()
    found = first_loss(other, batch)
    # the way back is compiled when it is first gone
    quick(0)
    seconds = time.perf_counter() - start
    turns = in_turns({LITERAL: plain, COMPILED: quick}, bench.extent.share(0.5), COMPILED, bench.extent.warm_up)
    return {
        "compiled": "backbone and neck",
        "seconds to compile": round(seconds, 1),
        "ms": spreads(turns),
        "times faster than literal": times_faster(turns, LITERAL)[COMPILED],
        "first loss": abs(found / expected - 1),
    }


def answer() -> None:
    """Read a :class:`Bench` from stdin, measure, and write the figures as the last line of stdout."""
    begin()
    found = measure(Bench.of_text(sys.stdin.read()))
    print(json.dumps(found))


def compiled(bench: Bench, command: Sequence[str] = ANSWER) -> dict[str, Any]:
    """Figures of torch.compile, or ``{"why not": sentence}``."""
    limit = bench.extent.compiling
    if not limit:
        return {"why not": "not tried in so short a measurement"}
    if (why := lacking()) is not None:
        return {"why not": why}
    process = started(command, stderr=subprocess.PIPE)
    try:
        out, errors = process.communicate(bench.as_text(), timeout=limit)
    except subprocess.TimeoutExpired:
        return {"why not": f"not compiled and measured within {limit:g} s"}
    finally:
        # with its compilers
        ended(process)
    if process.returncode:
        last = next(reversed(errors.strip().splitlines()), "no word on stderr")
        return {"why not": f"it failed: {last}"}
    return json.loads(out.splitlines()[-1])
