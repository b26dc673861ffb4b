"""How a command begins and how it ends badly.

It begins in UTF-8 and with its arguments, read before torch is imported (:func:`answer_early`). It ends with one line
on stderr for what the user can mend, and with a traceback for what is our fault.
"""

from __future__ import annotations

import argparse
import ast
import errno
import importlib
import importlib.metadata
import locale
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path


class _Parser(argparse.ArgumentParser):
    """Also refuses arguments that do not go together."""

    check: Callable[[argparse.Namespace], str | None] = staticmethod(lambda args: None)

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        if complaint := self.check(found):
            self.error(complaint)
        return found


def _docstring(command: str, package: str) -> str:
    """The docstring of a command's module, which is read and not imported."""
    path = Path(__file__).parents[2].joinpath(package, *command.split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _summary(command: str) -> str:
    """What a command does: the first line of its docstring without what the overview says anyway."""
    line = _docstring(command, "benchmark").splitlines()[0]
    return re.sub(r"^Stages? [^:]*: |:? *``python -m [^`]*``\.?", "", line)


def _add_version(parser: argparse.ArgumentParser) -> None:
    try:
        version = importlib.metadata.version("pgd")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    parser.add_argument("--version", action="version", version=f"pgd {version}")


#: where the arguments of a package's commands stand
ARGUMENTS = {"benchmark": "benchmark.experiment.arguments", "tools": "tools.arguments"}


def _commands(package: str) -> dict:
    # By name: the arguments of all commands are nothing that a result of one depends on, and who follows imports for a
    # digest shall not come upon them.
    return importlib.import_module(ARGUMENTS[package]).COMMANDS


def command_parser(command: str, package: str = "benchmark") -> argparse.ArgumentParser:
    """The parser of ``python -m <package>.<command>``."""
    parser = _Parser(
        prog=f"python -m {package}.{command}",
        description=_docstring(command, package),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser)
    add, parser.check = _commands(package)[command]
    add(parser)
    return parser


#: Commands that draw nothing: mmdet would load seaborn, for pictures of tracking, which takes as long as torch.
PLAIN = ("check", "plan", "train", "evaluate", "cost", "key_regions")


def take_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where the system's locale is of another encoding.

    pycocotools and mmdet read files as the locale says: classes would have other names there, and no objects.
    """
    if sys.flags.utf8_mode or locale.getencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, sys.orig_argv)


def answer_early(command: str, package: str = "benchmark") -> None:
    """Answer ``--help``, ``--version`` and usage errors; to be called before the imports that take seconds.

    A process of a command of :data:`PLAIN` then has no seaborn, which mmdet takes for one that is not installed.
    """
    take_utf8()
    command_parser(command, package).parse_args()
    if package == "benchmark" and command in PLAIN:
        sys.modules.setdefault("seaborn", None)


def overview_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m benchmark``: it lists the commands."""
    names = _commands("benchmark")
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {_summary(name)}" for name in names]
    parser = _Parser(
        prog="python -m benchmark",
        description="The commands: `python -m benchmark.COMMAND --help` says more of one.\n\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser)
    return parser


#: what a system says where there is no room for a file, or no right to one
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EROFS, errno.EACCES, errno.EPERM)


def what_to_mend(error: OSError) -> str | None:
    """A sentence on a file that cannot be used, as the system's own names no remedy; None for other errors."""
    file = error.filename or "a file"
    if error.errno in NO_ROOM:
        return f"{file}: {error.strerror}; make room and run the same command again, what was written before is kept"
    if error.errno in NO_RIGHT:
        return f"{file}: {error.strerror}; let this user read and write there (chmod, chown), or run it elsewhere"
    return None


def run_cli(main: Callable[[], None], *expected: type[Exception]) -> None:
    """Run ``main``; an ``expected`` error, or no room for a file, becomes ``error: ...`` and exit code 1."""
    try:
        main()
        sys.stdout.flush()
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # whoever reads has seen enough, as `head`; what is left must not be flushed to it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if (told := what_to_mend(error)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; a training goes on from its last checkpoint when started again", file=sys.stderr)
        sys.exit(130)
