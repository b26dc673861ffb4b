"""What a training shows while it runs, beside what it keeps: nothing here changes what is learnt.

The course goes to TensorBoard or DVCLive through mmengine's own backends; the progress bar is told what it is compared
with and how much is still to come.
"""

from __future__ import annotations

import importlib.util

from mmengine.config import Config

from benchmark.experiment.config import detector_config
from benchmark.experiment.settings import Job, Params, SettingsError
from benchmark.experiment.workspace import Workspace
from benchmark.training.hooks import INTERVAL, read_curve

#: How mmengine names each; DVCLive shall leave the experiment's git history and its dvc.yaml alone.
BACKENDS = {
    "tensorboard": {"type": "TensorboardVisBackend"},
    "dvclive": {
        "type": "DVCLiveVisBackend",
        "init_kwargs": {"save_dvc_exp": False, "dvcyaml": None, "report": None, "resume": True},
    },
}


def check_watch(params: Params) -> None:
    """What shall show the course of trainings must be installed.

    Raises:
        SettingsError: it is not; names the remedy.
    """
    for name in params.watch:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"watch: {name} is not installed; `pip install {name}`, or delete it here")


def watch(cfg: Config, params: Params, job: Job, space: Workspace) -> None:
    """Let a training write its course to ``work/watch/<label>/<backend>`` for each backend of ``params.watch``."""
    if not params.watch:
        return
    cfg.default_hooks.logger = {"type": "LoggerHook", "interval": INTERVAL}
    backends = [{**BACKENDS[name], "save_dir": str(space.watch(job) / name)} for name in params.watch]
    # one of the same name would be used again within a process, whatever it writes to
    cfg.visualizer = {"type": "Visualizer", "name": "".join(b["save_dir"] for b in backends), "vis_backends": backends}


def _length(job: Job) -> int:
    return detector_config(job.detector, job.options).train_cfg.get("max_iters") or 0


def _inheriting(params: Params, job: Job) -> Job | None:
    """The training that says what the loss of this one is worth: it inherits alike and has no method."""
    if job.run is None or job.run.method == "none":
        return None
    for name, run in params.runs.items():
        footing = run.pair, run.inherit, run.iterations
        if run.method == "none" and footing == (job.pair_name, job.run.inherit, job.run.iterations) and not run.options:
            return params.student(name, job.seed)
    return None


def announce(cfg: Config, params: Params, job: Job, space: Workspace) -> None:
    """Tell the progress bar how many steps other trainings still have, and the AP of the one it is compared with."""
    bar = next(hook for hook in cfg.custom_hooks if hook["type"] == "ProgressBar")
    others = [other for other in params.jobs if other.label != job.label]
    bar["after"] = sum(_length(other) for other in others if not space.trained(other).is_dir())
    against = _inheriting(params, job)
    if against is not None:
        curve = read_curve(space.trained(against) / "curve.jsonl")
        bar["compared"] = [(entry["step"], entry["AP"]) for entry in curve if "AP" in entry]
