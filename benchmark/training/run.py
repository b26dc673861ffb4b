"""One training, from its config to the trained model: all of this repository that its weights depend on.

What stands around it (settings, commands, records) is in its config or does not matter; `plan` digests the code that is
reached from here and the config.
"""

from __future__ import annotations

import importlib

from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.runner import Runner

import benchmark.training.draws
import benchmark.training.progress  # noqa: F401  registers its hook
import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.training.hooks import Record, distiller, require_change
from benchmark.training.preemption import Preemption

#: What trainings of several processes have besides, whatever starts these: they have met before
#: (benchmark/training/processes.py). A model is on its process's device already, which may be a CPU, and heads have
#: parts that a batch may leave unused, such as scales of levels without objects.
TOGETHER = {
    "launcher": "pytorch",
    "model_wrapper_cfg": {
        "type": "MMDistributedDataParallel",
        "find_unused_parameters": True,
        "device_ids": None,
        "broadcast_buffers": False,
    },
}
#: The module of what is recorded where there is a teacher; who trains with one imports it by this name.
DYNAMICS = "benchmark.training.dynamics"


def run(cfg: Config, label: str) -> tuple[Runner, float]:
    """Train, or finish, what a config describes; returns the runner and the seconds that it took, earlier ones too.

    Raises:
        FloatingPointError: a loss is not finite, or the student is what it was before.
    """
    if any(hook["type"] == "Dynamics" for hook in cfg.custom_hooks):
        importlib.import_module(DYNAMICS)  # registers its hook
    if "processes" in cfg:
        cfg.merge_from_dict(TOGETHER)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Preemption())
    runner.train()
    require_change(label, runner.work_dir, distiller(runner).student)
    # whoever comes next may remove the folder
    barrier()
    return runner, next(hook.seconds for hook in runner.hooks if isinstance(hook, Record))
