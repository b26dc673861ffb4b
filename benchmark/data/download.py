"""Fetching published files: going on where a cut connection left off, checked before they take their name.

What has arrived lies in ``<name>.partial``, which nothing here throws away: not a cut connection, a full disk, a server
that answers something else, nor a kill. Only a whole file of another checksum is moved aside, as ``<name>.wrong``. Of
several processes that want the same file one fetches it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from benchmark.data.faults import DataError
from benchmark.experiment.workspace import file_digest

#: bytes that are read at a time
CHUNK = 1 << 20
#: how often a connection may break without a byte gained, and the seconds before the next try
TRIES, PAUSE = 4, 2.0
#: seconds to connect, and between two pieces of data
TIMEOUT = (20, 60)
AGAIN = "run the same command again: it goes on from there"
#: what torchvision and mmdet put into the names of their files: the beginning of their SHA-256
PUBLISHED = re.compile(r"-([0-9a-f]{8,64})\.pth$")
CUT = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Remote:
    """A published file."""

    name: str
    url: str
    #: bytes; None: nobody has published it
    size: int | None = None
    md5: str | None = None
    #: what to do where the address is no good
    remedy: str = "take another place by --mirror"
    #: the SHA-256 or its beginning
    sha256: str | None = None

    @property
    def told_apart(self) -> bool:
        """Whether a part of it, or another file, can be told from the whole one: else nothing is gone on with."""
        return self.size is not None or self.sha256 is not None


def named_digest(name: str) -> str | None:
    """The beginning of a file's SHA-256 that its name publishes, as in ``resnet50-0676ba61.pth``."""
    found = PUBLISHED.search(name)
    return found and found[1]


def complaint(path: Path, remote: Remote) -> str | None:
    """What distinguishes a file from the published one; None: nothing."""
    if remote.size is not None and (size := path.stat().st_size) != remote.size:
        return f"{size} bytes, published are {remote.size}"
    if remote.md5 is not None and (found := file_digest(path, "md5")) != remote.md5:
        return f"its MD5 is {found}, published is {remote.md5}"
    if remote.sha256 is not None and not (found := file_digest(path)).startswith(remote.sha256):
        return f"its SHA-256 is {found}, published is {remote.sha256}"
    return None


def require_room(folder: Path, need: int, what: str) -> None:
    """Raise :class:`DataError` where a disk has not ``need`` bytes left."""
    if need > (free := shutil.disk_usage(folder).free):
        raise DataError(
            f"{folder}: {what} needs {need / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free some or choose another "
            "--root, nothing that was fetched is lost"
        )


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file into a folder, unless it is there; returns its place.

    Raises:
        DataError: one line that says what came instead, and the remedy.
    """
    target = folder / remote.name
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            # another process may have fetched it meanwhile
            if not target.is_file():
                return _fetched(remote, target)
    if wrong := complaint(target, remote):
        raise DataError(f"{target}: not the published file ({wrong}); move it away and run the same command again")
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes that want ``target`` waiting; they see that it is there, or go on where this one ended."""
    path = target.with_name(f"{target.name}.lock")
    while True:
        with path.open("w", encoding="utf-8") as lock:
            # where a file system knows no locks, the checksum finds out that two wrote at a time
            with suppress(OSError):
                _wait_for(lock, target.name)
            # who had it before has removed it: another file is the lock now
            if not _is_file_of(lock, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _wait_for(lock: IO, name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{name}: another process fetches it; waiting", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_file_of(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetched(remote: Remote, target: Path) -> Path:
    partial = target.with_name(f"{target.name}.partial")
    _receive(remote, partial)
    if wrong := complaint(partial, remote):
        aside = partial.replace(target.with_name(f"{target.name}.wrong"))
        raise DataError(
            f"{remote.url}: not the published file ({wrong}); it lies in {aside}. Run the same command again, or "
            f"{remote.remedy}"
        )
    return partial.replace(target)


def _receive(remote: Remote, partial: Path) -> None:
    """Bring ``partial`` to the file's length, over as many connections as it takes."""
    left = TRIES
    while True:
        have = partial.stat().st_size if partial.is_file() and remote.told_apart else 0
        if remote.size is not None:
            if have >= remote.size:
                return
            require_room(partial.parent, remote.size - have, remote.name)
        try:
            _one_connection(remote, partial, have)
            if remote.size is None:
                return
        except CUT as error:
            got = partial.stat().st_size if partial.is_file() else 0
            left = TRIES if got > have and remote.told_apart else left - 1
            if left == 0:
                why = f"no connection ({type(error).__name__}); try again later"
                if got > 0:
                    total = f" of {remote.size}" if remote.size else ""
                    again = AGAIN if remote.told_apart else "run the same command again"
                    why = f"the connection was cut after {got}{total} bytes ({type(error).__name__}); {again}"
                raise DataError(f"{remote.url}: {why}, or {remote.remedy}") from None
            time.sleep(PAUSE)


def _one_connection(remote: Remote, partial: Path, have: int) -> None:
    """Append what one request yields; raises one of :data:`CUT` where it ends early."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = requests.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.TooManyRedirects:
        raise DataError(f"{remote.url}: redirected in a circle; {remote.remedy}") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise DataError(f"{remote.url}: no address, such as http://host/folder; {remote.remedy}") from None
    with answer:
        if answer.status_code == 416 and remote.size is None:
            # all of it is here
            return
        begin = _check_answer(answer, remote, have)
        skip, length = have - begin, answer.headers.get("Content-Length")
        total = remote.size or (begin + int(length) if length else None)
        bar = tqdm(desc=remote.name, total=total, initial=have, unit="B", unit_scale=True, mininterval=1, leave=False)
        with partial.open("ab" if remote.told_apart else "wb") as file, bar:
            # what has arrived, where `iter_content` would wait for a whole piece and lose it with the connection
            while piece := answer.raw.read1(CHUNK):
                new, skip = piece[skip:], max(0, skip - len(piece))
                _write(file, new, partial)
                bar.update(len(new))


def _write(file, data: bytes, partial: Path) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # bytes that are still in Python's hands would be tried again when the file is closed
        file.detach().close()
        raise DataError(
            f"{partial}: the disk is full after {partial.stat().st_size} bytes; free some and {AGAIN}"
        ) from None


def _check_answer(answer: requests.Response, remote: Remote, have: int) -> int:
    """Where in the file the answer begins: at ``have``, or 0 from a server that knows no ranges.

    Raises:
        DataError: the answer is an error, or another file.
    """
    where = remote.url if answer.url == remote.url else f"{remote.url} (redirected to {answer.url})"
    if urlsplit(remote.url).scheme == "https" and urlsplit(answer.url).scheme != "https":
        raise DataError(f"{where}: redirected to a place without encryption; {remote.remedy}")
    if answer.status_code not in (200, 206):
        what = {404: "there is no such file (404)", 403: "access is refused (403)"}
        told = what.get(answer.status_code, f"the server answers {answer.status_code} {answer.reason}")
        kept = f", the {have} bytes that are here are kept" if have else ""
        raise DataError(f"{where}: {told}; try again later or {remote.remedy}{kept}")
    begin, length = 0, answer.headers.get("Content-Length")
    total = int(length) if length else None
    if answer.status_code == 206:
        place, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        begin = int(place.partition("-")[0]) if place[:1].isdigit() else -1
        total = int(whole) if whole.isdigit() else None
        if begin != have:
            raise DataError(f"{where}: asked for bytes from {have} on, it sends others; {remote.remedy}")
    if remote.size is not None and total is not None and total != remote.size:
        raise DataError(
            f"{where}: {total} bytes, published are {remote.size}: another file (or a page to log in); {remote.remedy}"
        )
    return begin
