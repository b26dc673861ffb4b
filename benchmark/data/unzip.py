"""Unpacking archives from elsewhere: nothing leaves the folder, nothing is a link, nothing is larger than said.

A member is written beside its place, checked, and moved there; what stands there already and is the same is left alone.
So a kill costs the member that was at work, and the next call goes on.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from benchmark.data.download import AGAIN, CHUNK, require_room
from benchmark.data.faults import DataError


@dataclass(frozen=True)
class File:
    """A file that should be there."""

    name: str
    size: int
    #: checksum of :data:`CHECKSUMS` and its value
    kind: str
    value: str


class _Crc:
    """CRC-32 with the face of hashlib."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes) -> None:
        self.value = zlib.crc32(data, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


CHECKSUMS = {"crc32": _Crc, "sha256": hashlib.sha256}


def checksum(path: Path, kind: str) -> str:
    """Of a file, by a kind of :data:`CHECKSUMS`."""
    found = CHECKSUMS[kind]()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def wrong(root: Path, file: File, deep: bool = True) -> str | None:
    """What is the matter with a file below ``root``, ``missing`` or how it differs; ``deep``: by its checksum, too."""
    path = root / file.name
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != file.size:
        return f"{size} bytes instead of {file.size}"
    return "of another content" if deep and checksum(path, file.kind) != file.value else None


def wrong_files(root: Path, files: Iterable[File], deep: bool, label: str) -> dict[str, str]:
    """By name, what is the matter; empty: all are there and right."""
    found = {f.name: wrong(root, f, deep) for f in tqdm(list(files), desc=label, mininterval=1, leave=False)}
    return {name: why for name, why in found.items() if why}


def members(archive: zipfile.ZipFile, prefix: str, most: int) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by their names without ``prefix``; what stands outside of it is left out.

    Raises:
        DataError: a name leads out of the folder or stands twice, a member is a link or encrypted, or all together are
            larger than ``most`` bytes.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or {"\\", "\0", ":"} & set(name):
            raise DataError(f"{archive.filename}: '{name}' leads out of the folder; this is no archive to unpack")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & 1:
            raise DataError(f"{archive.filename}: '{name}' is a link or encrypted; this is no archive to unpack")
        if member.is_dir() or not name.startswith(prefix):
            continue
        if (short := name.removeprefix(prefix)) in found:
            raise DataError(f"{archive.filename}: '{name}' stands twice in it; this is no archive to unpack")
        found[short] = member
    if (total := sum(member.file_size for member in found.values())) > most:
        raise DataError(f"{archive.filename}: {total} bytes unpacked, more than the {most} that it may have")
    return found


def listing(archive: Path, most: int) -> list[File]:
    """What an archive holds."""
    try:
        with zipfile.ZipFile(archive) as content:
            found = members(content, "", most)
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive}: no zip archive ({error}); delete it and fetch it again") from None
    return [File(name, member.file_size, "crc32", f"{member.CRC:08x}") for name, member in found.items()]


def unpack(archive: Path, root: Path, files: Iterable[File], prefix: str = "", most: int = 1 << 62) -> None:
    """Unpack ``files``, as their size and checksum say that they are; what is there and right is left alone.

    Raises:
        DataError: the archive is not safe (:func:`members`) or lacks one, a member is another than said, another file
            stands in its place, or the disk is full.
    """
    files = list(files)
    try:
        with zipfile.ZipFile(archive) as content:
            found: Mapping[str, zipfile.ZipInfo] = members(content, prefix, most)
            todo = {f: why for f in files if (why := wrong(root, f))}
            if foreign := [f"{f.name} ({why})" for f, why in todo.items() if why != "missing"]:
                raise DataError(
                    f"{root}: {len(foreign)} files stand in the way (first: {foreign[0]}); move them away and {AGAIN}"
                )
            root.mkdir(parents=True, exist_ok=True)
            require_room(root, sum(f.size for f in todo), "what is unpacked")
            for file in tqdm(todo, desc=f"unpacking {archive.name}", mininterval=1, leave=False):
                if (member := found.get(file.name)) is None or member.file_size != file.size:
                    raise DataError(f"{archive}: '{prefix}{file.name}' is not in it as published; {AGAIN}")
                _extract(content, member, root / file.name, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: damaged ({error}); delete it and fetch it again") from None


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, file: File) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    try:
        # zipfile reads no more than the size that it states, and compares its CRC-32
        with archive.open(member) as source, partial.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
        if (found := checksum(partial, file.kind)) != file.value:
            raise DataError(
                f"{archive.filename}: '{member.filename}' is another file than published ({file.kind} {found[:12]}, "
                f"not {file.value[:12]}); nothing was put in its place"
            )
        partial.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(f"{target}: the disk is full; free some and {AGAIN}") from None
    finally:
        partial.unlink(missing_ok=True)
