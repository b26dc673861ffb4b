"""The stages of an experiment as DVC knows them: what needs what, what is out of date, and running one of them."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

#: what DVC says when another DVC process works in the same repository: no failure, but a moment to wait
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
#: how lines begin that DVC adds to what a stage said
ADVICE = (
    "ERROR: failed to reproduce",
    "Use `dvc",
    "To track",
    "git add",
    "To enable auto",
    "dvc config core.autostage",
)
#: seconds between two tries, drawn at random, so that those who wait do not wake together
WAIT = (0.5, 3.0)


class StageError(RuntimeError):
    """A stage failed; the message is the last line that it wrote."""


class Stages:
    """The stages of one ``dvc.yaml``.

    Args:
        folder: that holds it.

    Raises:
        StageError: DVC cannot read it.
    """

    def __init__(self, folder: Path) -> None:
        # seconds to import, and no matter to who asks for help
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        self.folder = folder.resolve()
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
                stage.always_changed = stage.always_changed and not ran
                return stage.changed()
            time.sleep(random.uniform(*WAIT))


def run_stage(name: str, folder: str) -> None:
    """``dvc repro`` one stage alone, waiting for other DVC processes; its output goes on to ours.

    Raises:
        StageError: it failed.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    while True:
        ended = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last = b""
        while part := ended.stdout.read1(4096):
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
            last = (last + part)[-4096:]
        if ended.wait() == 0:
            return
        text = last.decode(errors="replace")
        if not any(words in text for words in BUSY):
            raise StageError(last_line(text) or f"dvc repro {name} ended with {ended.returncode}")
        time.sleep(random.uniform(*WAIT))


def last_line(text: str) -> str:
    """What stands last in a log, of a progress bar its last state; DVC's and submitit's own words come last."""
    lines = [line.split("\r")[-1].strip() for line in text.replace("\r\n", "\n").splitlines()]
    lines = [line for line in lines if line and not line.startswith("submitit ")]
    told = [line for line in lines if not line.startswith(ADVICE)]
    return (told or lines or [""])[-1]
