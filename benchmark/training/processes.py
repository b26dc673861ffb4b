"""One training by many processes, a GPU each: who starts them, and how they meet.

``torchrun`` (``launcher: pytorch``) or, within a job of Slurm, ``srun`` (``launcher: slurm``) starts the very command
again as often as ``gpus`` says; the processes find each other by what these put into the environment. Where there is no
GPU they compute on the CPU and talk by gloo.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from mmengine.dist import get_world_size, init_dist

from benchmark.experiment.settings import Detector, SettingsError

#: set in processes that were started to train together
STARTED = "PGD_PROCESSES"


def command(detector: Detector, module: str, arguments: list[str]) -> list[str] | None:
    """What starts all processes of a training; None for one that needs no others, or in one of them.

    Raises:
        SettingsError: ``launcher: slurm`` outside of a job of Slurm.
    """
    if detector.gpus == 1 or STARTED in os.environ:
        return None
    count = str(detector.gpus)
    if detector.launcher == "pytorch":
        started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        return [*started, "-m", module, *arguments]
    if "SLURM_JOB_ID" not in os.environ:
        raise SettingsError(
            "launcher: slurm starts processes within a job of Slurm, and this is none; call it from sbatch, "
            f"with --ntasks={count}, or take launcher: pytorch (`python -m benchmark.launch` gives each stage one task)"
        )
    # the others shall not wait for one that is gone
    return ["srun", "--ntasks", count, "--kill-on-bad-exit=1", sys.executable, "-m", module, *arguments]


def start(detector: Detector, module: str, arguments: list[str]) -> None:
    """Become what starts all processes of a training, where it takes more than this one."""
    if (found := command(detector, module, arguments)) is None:
        return
    os.environ[STARTED] = str(detector.gpus)
    # torchrun says so itself, at length
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // detector.gpus)))
    if detector.launcher == "slurm":
        os.environ["MASTER_ADDR"] = _first_node(os.environ["SLURM_JOB_NODELIST"])
        # jobs may share a node
        os.environ["MASTER_PORT"] = str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000)
    os.execvp(found[0], found)


def _first_node(nodes: str) -> str:
    """Of a list in Slurm's way of writing (``node[3-7,9]``)."""
    told = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    return told.stdout.split()[0]


def join(detector: Detector) -> None:
    """Meet the other processes of a training; nothing where it is one alone.

    Raises:
        SettingsError: there are not as many as the settings say.
    """
    if detector.gpus == 1:
        return
    if not torch.distributed.is_initialized():
        if STARTED not in os.environ:
            raise SettingsError(
                f"gpus: {detector.gpus} processes train together, and this is one; start them by "
                "`python -m benchmark.train`"
            )
        if torch.cuda.is_available():
            init_dist(detector.launcher, backend="nccl")
        else:
            # mmengine's would ask for GPUs
            if detector.launcher == "slurm":
                names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
                os.environ.update({ours: os.environ[theirs] for ours, theirs in names.items()})
            torch.distributed.init_process_group("gloo")
    if get_world_size() != detector.gpus:
        raise SettingsError(f"gpus: {detector.gpus} in the settings, and {get_world_size()} processes were started")
