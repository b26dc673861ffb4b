"""Downloads from a server of this machine: cut, redirected, wrong, refused, too large for the disk."""

from __future__ import annotations

import errno
import hashlib
from collections import namedtuple

import pytest
from support.file_server import Site, serve

from benchmark.data import download
from benchmark.data.download import Remote, fetch
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
    with pytest.raises(DataError, match="no connection after 0 of 5 bytes"):
        fetch(Remote("a", "http://127.0.0.1:9/a", 5), tmp_path)


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
