"""Fetch a data set that may be fetched, or check one: ``python -m benchmark.fetch coco --root DIR``.

``coco``: COCO 2017, 20.4 GB in three archives. A download that is cut goes on at the next call; each archive is
compared with its published size and MD5, unpacked once and deleted (``--keep`` keeps it). ``bccd``: BCCD
(Shenggan/BCCD_Dataset, MIT), 364 images of blood cells, each file compared with its SHA-256. ``crowdhuman`` is never
downloaded: it tells which of its files are there and right. ``--check`` fetches nothing and compares every file.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("fetch")

import json
from dataclasses import asdict
from pathlib import Path

from benchmark.data import crowdhuman
from benchmark.data.download import Remote, complaint, fetch, require_room
from benchmark.data.faults import NAMED, DataError
from benchmark.data.unzip import File, listing, unpack, wrong_files
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.workspace import ROOT, file_digest

COCO = "http://images.cocodataset.org"
#: COCO 2017's archives below a mirror: size in bytes and MD5, as torchvision's and PaddleDetection's loaders have them
COCO_FILES = {
    "annotations/annotations_trainval2017.zip": (252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"),
    "zips/val2017.zip": (815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    "zips/train2017.zip": (19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
}
#: the most that an archive may unpack to, by its own size: JSON shrinks to a third or less, JPEG not at all
GROWTH = 8
GITHUB = "https://github.com"
BCCD = ROOT / "benchmark" / "data" / "bccd.json"
#: CrowdHuman's archives, which may lie beside what was unpacked from them: size in bytes and SHA-256
CROWDHUMAN_FILES = {
    "CrowdHuman_train01.zip": (2_970_597_373, "7ba340163cff0f2446027af95dc96bcb9c66be18506eabb57822c400a7efd3b8"),
    "CrowdHuman_train02.zip": (3_092_749_718, "d9ecfb43eaf8381ddd4d1ff4e9a0877b694dbfba7a7a33ed3966ee2c2a628663"),
    "CrowdHuman_train03.zip": (2_306_357_030, "9cac171914c4f5c7371e3d42d20b50858caa1602811ae573aa35bbfe672dc29f"),
    "CrowdHuman_val.zip": (2_488_658_160, "c0ab99bb80ac162cd3efdf94a1a6100c4f059a61d69596412c6b44ebc20d1363"),
}


def coco_remotes(mirror: str | None) -> list[Remote]:
    """COCO's archives, the small ones first: what is wrong shows early."""
    base = (mirror or COCO).rstrip("/")
    return [Remote(Path(path).name, f"{base}/{path}", *facts) for path, facts in COCO_FILES.items()]


def _receipt(root: Path, remote: Remote) -> Path:
    """Says what an archive held, once all of it is unpacked."""
    return root / f"{remote.name}.json"


def unpacked(root: Path, remote: Remote) -> list[File] | None:
    """The files of an archive that was unpacked here; None where it was not."""
    receipt = _receipt(root, remote)
    if not receipt.is_file():
        return None
    content = json.loads(receipt.read_text(encoding="utf-8"))
    return [File(**one) for one in content["files"]] if content["md5"] == remote.md5 else None


def _told(root: Path, bad: dict[str, str], remedy: str) -> DataError:
    """An error that names the first of many files."""
    some = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:NAMED])
    return DataError(f"{root}: {len(bad)} files are missing or wrong ({some}); {remedy}")


def fetch_coco(root: Path, mirror: str | None = None, keep: bool = False) -> None:
    """Bring COCO 2017 to ``root``, as far as it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    remotes = coco_remotes(mirror)
    todo = [r for r in remotes if (files := unpacked(root, r)) is None or wrong_files(root, files, False, r.name)]
    places = [root / f"{remote.name}{suffix}" for remote in todo for suffix in ("", ".partial")]
    there = sum(path.stat().st_size for path in places if path.is_file())
    # the largest archive and what is unpacked from it lie there at the same time
    require_room(root, sum(r.size for r in todo) + max((r.size for r in todo), default=0) - there, "COCO 2017")
    for remote in remotes:
        if remote in todo:
            archive = fetch(remote, root)
            files = listing(archive, GROWTH * remote.size)
            unpack(archive, root, files, most=GROWTH * remote.size)
            content = {"md5": remote.md5, "files": [asdict(file) for file in files]}
            _receipt(root, remote).write_text(json.dumps(content) + "\n", encoding="utf-8")
            if not keep:
                archive.unlink()
        print(f"{remote.name}: {'unpacked' if remote in todo else 'was there'}")


def check_coco(root: Path) -> None:
    """Compare every file of COCO 2017 with what the archives held; archives that are here with what is published."""
    lacking = {}
    for remote in coco_remotes(None):
        files, archive = unpacked(root, remote), root / remote.name
        if archive.is_file() and (why := complaint(archive, remote)):
            lacking[remote.name] = why
        if files is None:
            lacking.setdefault(remote.name, "not unpacked here by this command")
            continue
        bad = wrong_files(root, files, True, remote.name)
        print(f"{remote.name}: {len(files) - len(bad)} of {len(files)} files are right")
        lacking |= bad
    if lacking:
        raise _told(root, lacking, f"`python -m benchmark.fetch coco --root {root}` fetches what is not there")


def bccd_files() -> tuple[dict, list[File]]:
    """What is known of BCCD: its place, and its files."""
    known = json.loads(BCCD.read_text(encoding="utf-8"))
    return known, [File(name, size, "sha256", value) for name, (size, value) in known["files"].items()]


def fetch_bccd(root: Path, mirror: str | None = None) -> None:
    """Bring BCCD to ``root``: GitHub's archive of one commit, whose own bytes may change while its files do not."""
    known, files = bccd_files()
    root.mkdir(parents=True, exist_ok=True)
    if not wrong_files(root, files, True, "bccd"):
        print(f"bccd: {len(files)} files were there")
        return
    repository, commit = known["repository"], known["commit"]
    url = f"{(mirror or GITHUB).rstrip('/')}/{repository}/archive/{commit}.zip"
    archive = fetch(Remote(f"bccd-{commit[:12]}.zip", url), root)
    most = GROWTH * sum(file.size for file in files)
    try:
        unpack(archive, root, files, f"{repository.partition('/')[2]}-{commit}/", most)
    finally:
        # of a wrong one nothing can be used, and a right one is not needed any more
        archive.unlink()
    print(f"bccd: {len(files)} files, {known['licence']} licence (LICENSE)")


def check_bccd(root: Path) -> None:
    """Compare every file of BCCD with its SHA-256."""
    _, files = bccd_files()
    if bad := wrong_files(root, files, True, "bccd"):
        raise _told(root, bad, f"move what is wrong away; `python -m benchmark.fetch bccd --root {root}` fetches it")
    print(f"bccd: {len(files)} files are right")


def check_crowdhuman(root: Path) -> None:
    """Tell which of CrowdHuman's files are there and right.

    Raises:
        DataError: an annotation file or an image is missing, or a file is not the published one.
    """
    found, bad = crowdhuman.find(root), {}
    for split, (odgt, folders) in found.items():
        crowdhuman.check_digest(odgt, crowdhuman.PUBLISHED[split])
        faults = crowdhuman.Faults(odgt)
        names = {record.file_name for record in crowdhuman.read_odgt(odgt, faults)}
        there = {path.name for folder in folders for path in folder.iterdir() if path.stat().st_size}
        bad |= {name: "missing or empty" for name in sorted(names - there)}
        print(f"{odgt.name}: as published; {len(names & there)} of {len(names)} images are there")
    for name, (size, value) in CROWDHUMAN_FILES.items():
        path = root / name
        if path.is_file():
            right = path.stat().st_size == size and file_digest(path) == value
            print(f"{name}: {'as published' if right else 'not the published file'}")
            bad |= {} if right else {name: "not the published file"}
    if bad:
        raise _told(root, bad, crowdhuman.SOURCE)


def main() -> None:
    args = command_parser("fetch").parse_args()
    root = args.root.expanduser()
    if args.name == "crowdhuman":
        check_crowdhuman(root)
    elif args.name == "coco":
        check_coco(root) if args.check else fetch_coco(root, args.mirror, args.keep)
    else:
        check_bccd(root) if args.check else fetch_bccd(root, args.mirror)


if __name__ == "__main__":
    run_cli(main, DataError)
