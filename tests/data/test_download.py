"""Downloads from a server of this machine: cut, redirected, wrong, refused, too large for the disk."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.file_server import Site, serve

from benchmark.data import download
from benchmark.data.download import Remote, fetch, named_digest
from benchmark.data.faults import DataError

BODY = bytes(range(256)) * 400
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(Site({"/a.zip": BODY})) as running:
        yield running


def remote(site: Site, name: str = "a.zip", **facts) -> Remote:
    known = {"size": len(BODY), "md5": hashlib.md5(BODY).hexdigest(), **facts}
    return Remote("a.zip", f"{site.address}/{name}", **known)


def test_whole(site, tmp_path):
    assert fetch(remote(site), tmp_path).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_finished_one_is_not_fetched_again(site, tmp_path):
    fetch(remote(site), tmp_path)
    fetch(remote(site), tmp_path)
    assert len(site.asked) == 1


def test_a_cut_connection_is_gone_on_with(site, tmp_path):
    site.cuts = [1000, 5000]
    assert fetch(remote(site), tmp_path).read_bytes() == BODY
    assert site.asked == [("/a.zip", None), ("/a.zip", "bytes=1000-"), ("/a.zip", "bytes=6000-")]


def test_the_next_call_goes_on(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    site.cuts = [1000, 0]
    with pytest.raises(
        DataError, match=rf"the connection was cut after 1000 of {len(BODY)} bytes .*goes on from there"
    ):
        fetch(remote(site), tmp_path)
    assert (tmp_path / "a.zip.partial").read_bytes() == BODY[:1000]
    assert fetch(remote(site), tmp_path).read_bytes() == BODY
    assert site.asked[-1] == ("/a.zip", "bytes=1000-")


def test_a_server_without_ranges(site, tmp_path):
    """It sends all of it: what is there is passed over and kept."""
    site.ranges = False
    (tmp_path / "a.zip.partial").write_bytes(BODY[:1000])
    site.cuts = [500]
    assert fetch(remote(site), tmp_path).read_bytes() == BODY


def test_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(
        DataError, match=r"/a: no connection \(ConnectionError\); try again later, or take another place"
    ):
        fetch(Remote("a", "http://127.0.0.1:9/a", 5), tmp_path)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth", "25944287"),
        ("shufflenetv2_x1-5666bf0f80.pth", "5666bf0f80"),
        ("resnet50.pth", None),
        ("resnet50-0676BA61.pth", None),
        ("resnet50-0676ba61.pth.txt", None),
    ],
)
def test_a_digest_in_a_name(name, digest):
    assert named_digest(name) == digest


SHA256 = hashlib.sha256(BODY).hexdigest()


def test_of_a_digest_the_beginning_will_do(site, tmp_path):
    assert fetch(remote(site, size=None, md5=None, sha256=SHA256[:8]), tmp_path).read_bytes() == BODY
    site.files["/a.zip"] = BODY[1:]
    with pytest.raises(
        DataError, match=rf"a\.zip: not the published file \(its SHA-256 is .{{64}}, published is {SHA256}"
    ):
        fetch(remote(site, size=None, md5=None, sha256=SHA256), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["a.zip.wrong"]


def test_with_a_digest_and_no_size_it_is_gone_on_with(site, tmp_path, monkeypatch):
    """Within a call and in the next one, also where nothing but the last check was left to do."""
    wanted = remote(site, size=None, md5=None, sha256=SHA256)
    site.cuts = [1000, 5000, 0, 0, 0, 0]
    with pytest.raises(DataError, match=r"cut after 6000 bytes \(ProtocolError\).*goes on from there, or take"):
        fetch(wanted, tmp_path)
    assert fetch(wanted, tmp_path).read_bytes() == BODY
    assert site.asked[-1] == ("/a.zip", "bytes=6000-")
    (tmp_path / "a.zip").rename(tmp_path / "a.zip.partial")
    assert fetch(wanted, tmp_path).read_bytes() == BODY
    assert site.asked[-1] == ("/a.zip", f"bytes={len(BODY)}-")


def test_what_cannot_be_told_from_another_file_is_fetched_from_its_beginning(site, tmp_path):
    wanted = remote(site, size=None, md5=None)
    (tmp_path / "a.zip.partial").write_bytes(b"of another file")
    site.cuts = [1000, 5000]
    assert fetch(wanted, tmp_path).read_bytes() == BODY
    assert site.asked == [("/a.zip", None)] * 3
    (tmp_path / "a.zip").unlink()
    site.cuts = [1000] * 4
    with pytest.raises(DataError, match=r"cut after 1000 bytes \(ProtocolError\); run the same command again, or take"):
        fetch(wanted, tmp_path)


def test_of_several_at_a_time_one_fetches_it(site, tmp_path):
    site.cuts = [1000, 5000]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch(remote(site), tmp_path).read_bytes(), range(8)))
    assert found == [BODY] * 8
    assert len(site.asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_who_waits_says_so_and_takes_what_the_other_fetched(site, tmp_path, capsys):
    other = threading.Thread(target=fetch, args=(remote(site), tmp_path))
    with download._alone(tmp_path / "a.zip"):
        other.start()
        said, end = "", time.monotonic() + 20
        while "waiting" not in said and time.monotonic() < end:
            said += capsys.readouterr().out
        (tmp_path / "a.zip").write_bytes(BODY)
    other.join(20)
    assert said == "a.zip: another process fetches it; waiting\n"
    assert site.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_lock_that_a_kill_left_behind(site, tmp_path):
    (tmp_path / "a.zip.lock").touch()
    assert fetch(remote(site), tmp_path).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_system_without_locks(site, tmp_path, monkeypatch):
    def none(*_) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(download.fcntl, "flock", none)
    assert fetch(remote(site), tmp_path).read_bytes() == BODY


def test_a_folder_that_may_only_be_read(tmp_path, monkeypatch):
    """What is there is checked and taken."""
    (tmp_path / "a.zip").write_bytes(BODY)
    monkeypatch.setattr(download, "_alone", None)
    assert fetch(Remote("a.zip", "http://127.0.0.1:9/a", sha256=SHA256), tmp_path) == tmp_path / "a.zip"


def test_wrong_checksum(site, tmp_path):
    """Nothing takes the name; what came is moved aside, and the next call asks anew."""
    site.files["/a.zip"] = bytes(len(BODY))
    with pytest.raises(DataError, match=r"not the published file \(its MD5 is .*a\.zip\.wrong.*--mirror"):
        fetch(remote(site), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.wrong"]
    site.files["/a.zip"] = BODY
    assert fetch(remote(site), tmp_path).read_bytes() == BODY


def test_another_file_in_its_place(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.zip: not the published file \(4 bytes, .*move it away"):
        fetch(remote(site), tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_not_there(site, tmp_path):
    (tmp_path / "a.zip.partial").write_bytes(BODY[:7])
    with pytest.raises(DataError, match=r"there is no such file \(404\).*--mirror, the 7 bytes that are here are kept"):
        fetch(remote(site, "b.zip"), tmp_path)
    assert (tmp_path / "a.zip.partial").read_bytes() == BODY[:7]


def test_redirected_to_the_file(site, tmp_path):
    site.moved["/old.zip"] = "/a.zip"
    assert fetch(remote(site, "old.zip"), tmp_path).read_bytes() == BODY


def test_redirected_to_a_page(site, tmp_path):
    site.moved["/old.zip"], site.files["/login"] = "/login", b"<html>who are you?</html>"
    with pytest.raises(DataError, match=r"redirected to .*/login\): 25 bytes, published are .*a page to log in"):
        fetch(remote(site, "old.zip"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_redirected_in_a_circle(site, tmp_path):
    site.moved["/old.zip"] = "/old.zip"
    with pytest.raises(DataError, match="redirected in a circle"):
        fetch(remote(site, "old.zip"), tmp_path)


def test_no_address(tmp_path):
    with pytest.raises(DataError, match="no address, such as http://host/folder; take another place by --mirror"):
        fetch(Remote("a", "example.org/a", 5), tmp_path)


def test_no_room(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(9, 9, 1000))
    with pytest.raises(
        DataError, match="are free; free some or choose another --root, nothing that was fetched is lost"
    ):
        fetch(remote(site), tmp_path)
    assert site.asked == []


def test_the_disk_fills_up(site, tmp_path, monkeypatch):
    """Of what was written nothing is lost, and the next call goes on."""
    monkeypatch.setattr(download, "CHUNK", 1000)
    whole, left = download._write, [3]

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, data) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def detach(self):
            self.file.flush()
            return self.file.raw

    def write(file, data, partial) -> None:
        left[0] -= 1
        whole(file if left[0] >= 0 else Full(file), data, partial)

    monkeypatch.setattr(download, "_write", write)
    with pytest.raises(DataError, match="the disk is full after 3000 bytes; free some and run the same command again"):
        fetch(remote(site), tmp_path)
    assert (tmp_path / "a.zip.partial").read_bytes() == BODY[:3000]
    monkeypatch.setattr(download, "_write", whole)
    assert fetch(remote(site), tmp_path).read_bytes() == BODY
    assert site.asked[-1] == ("/a.zip", "bytes=3000-")
