"""The stages of an experiment as DVC knows them: what needs what, what is out of date, and running one of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

#: what DVC says when another DVC process works in the same repository: no failure, but a moment to wait
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
#: what DVC says, from then on at every call, when one of its processes was killed while it wrote down who reads what
TORN = re.compile(r"Unable to read RWLock-file '([^']+)'")
#: how lines begin that DVC adds to what a stage said
ADVICE = (
    "ERROR: failed to reproduce",
    "Use `dvc",
    "To track",
    "git add",
    "To enable auto",
    "dvc config core.autostage",
)
#: what a training says that was told to end and has saved (benchmark/training/preemption.py)
TOLD = "told to end after"
#: by which a cluster tells a job before it takes its node; submitit has Slurm send the last before time is over
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: seconds between two tries, drawn at random, so that those who wait do not wake together
WAIT = (0.5, 3.0)


class StageError(RuntimeError):
    """A stage failed; the message is the last line that it wrote."""


class Stages:
    """The stages of one ``dvc.yaml``.

    Args:
        folder: that holds it.
        partial: a stage whose outputs are gone, but whose inputs are what they were, has nothing to do, unless another
            one asks for them.

    Raises:
        StageError: DVC cannot read it.
    """

    def __init__(self, folder: Path, partial: bool = False) -> None:
        # seconds to import, and no matter to who asks for help
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        self.folder, self.partial = folder.resolve(), partial
        file = str(self.folder / "dvc.yaml")
        try:
            self.repo = Repo(Repo.find_root(str(self.folder)))
            graph = self.repo.index.graph
        except DvcException as error:
            raise StageError(str(error)) from None
        self._stages = {s.name: s for s in self.repo.index.stages if s.path == file and hasattr(s, "name")}
        if not self._stages:
            raise StageError(f"{file}: no stages; run this from the folder of an experiment")
        #: by stage, the others of the file that come before it
        self.needs = {
            name: frozenset(before.name for before in graph.successors(stage) if getattr(before, "path", "") == file)
            for name, stage in self._stages.items()
        }

    def with_needs(self, names: set[str]) -> set[str]:
        """These stages and all that come before them."""
        todo, found = set(names), set()
        while todo:
            found |= todo
            todo = {before for name in todo for before in self.needs[name]} - found
        return found

    def changed(self, name: str, ran: bool = False) -> bool:
        """Whether a stage has to run, by the files as they are now; one that ran just now need not always run again."""
        from dvc.lock import LockError

        while True:
            with contextlib.suppress(LockError), self.repo.lock:
                # dvc.lock holds what the stage's last run left, which may have been that of another process
                stage = self._stages[name].reload()
                # to DVC the outputs of a stage that never ran are missing like any others
                new = any(not out.hash_info for out in stage.outs)
                stage.always_changed = stage.always_changed and not ran
                return new or stage.changed(allow_missing=self.partial)
            time.sleep(random.uniform(*WAIT))

    def there(self, name: str) -> bool:
        """Whether all outputs of a stage are."""
        return all(os.path.exists(out.fs_path) for out in self._stages[name].outs)

    def lacking(self, name: str) -> set[str]:
        """The stages that this one needs and whose outputs it would not find."""
        needed = {dependency.fs_path for dependency in self._stages[name].deps}
        outputs = {before: [out.fs_path for out in self._stages[before].outs] for before in self.needs[name]}
        return {
            before
            for before, paths in outputs.items()
            if any(not os.path.exists(path) for path in paths if _reached(path, needed))
        }

    def absent(self, names: set[str]) -> dict[str, str]:
        """What these stages need, none makes and is not there: paths from the folder, and what brings each."""
        made = {out.fs_path for stage in self._stages.values() for out in stage.outs}
        needed = {dependency.fs_path for name in names for dependency in self._stages[name].deps}
        pinned = {out.fs_path: stage.path for stage in self.repo.index.stages for out in stage.outs}
        gone = [path for path in sorted(needed) if not os.path.exists(path) and not _reached(path, made)]

        def shown(path: str) -> str:
            return os.path.relpath(path, self.folder)

        return {
            shown(path): f"`dvc pull {shown(pinned[path])}` brings it" if path in pinned else "bring it back"
            for path in gone
        }


def _reached(path: str, needed: set[str]) -> bool:
    """Whether a file or folder is one of those needed, lies in one or holds one."""
    return any(path == one or path.startswith(f"{one}{os.sep}") or one.startswith(f"{path}{os.sep}") for one in needed)


def run_stage(name: str, folder: str, partial: bool = False, gpus: str | None = None) -> None:
    """``dvc repro`` one stage alone, waiting for other DVC processes; its output goes on to ours.

    ``partial``: what is in the remote is fetched before it is made. ``gpus``: all that the stage sees; None: what is
    set already. (submitit hides all GPUs from the jobs of one machine, but for the first ones, the same for each.)

    Raises:
        StageError: it failed.
    """
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if partial:
        # what is not there is made, and no failure to be told
        _dvc(["pull", "--quiet", "--allow-missing", name], folder)
    code, text = _dvc(["repro", "--single-item", name], folder)
    if code:
        raise StageError(last_line(text) or f"dvc repro {name} ended with {code}")


def _dvc(arguments: list[str], folder: str) -> tuple[int, str]:
    """Run DVC, again and again while others are at work; its exit code and the end of what it said."""
    while True:
        # Else DVC gives a stage up, and with it its outputs, that finds the repository locked when it ends.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
        ended = _start(command, folder)
        last = b""
        while part := ended.stdout.read1(4096):
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
            last = (last + part)[-4096:]
        code, text = ended.wait(), last.decode(errors="replace")
        torn = TORN.search(text)
        if torn:
            _mend(Path(folder) / torn[1])
        if code == 0 or not (torn or any(words in text for words in BUSY)):
            return code, text
        time.sleep(random.uniform(*WAIT))


def _mend(torn: Path) -> None:
    """Remove a file of DVC's that is no JSON, of which nothing can be learned; where several do, the first of them."""
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads(torn.read_text(encoding="utf-8"))
        except ValueError:
            torn.unlink()


def _start(command: list[str], folder: str) -> subprocess.Popen:
    """A process whose output is read. In a job of Slurm it and what it starts do not hear :data:`SIGNALS`, so that DVC
    takes over what a stage leaves, but trainings, which hear SIGTERM and save, are told whichever of them comes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return subprocess.Popen(command, cwd=folder, **pipes)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    started = subprocess.Popen(command, cwd=folder, process_group=0, **pipes)

    def tell(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)

    for number in SIGNALS:
        signal.signal(number, tell)
    return started


def last_line(text: str) -> str:
    """What stands last in a log, of a progress bar its last state; DVC's and submitit's own words come last."""
    lines = [line.split("\r")[-1].strip() for line in text.replace("\r\n", "\n").splitlines()]
    lines = [line for line in lines if line and not line.startswith("submitit ")]
    told = [line for line in lines if not line.startswith(ADVICE)]
    return (told or lines or [""])[-1]
