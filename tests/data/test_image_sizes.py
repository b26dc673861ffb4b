"""Sizes of images: from headers, once, and remembered where that is possible."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmcv
import numpy as np
import pytest
from PIL import Image

from benchmark.data import image_sizes as module
from benchmark.data.image_sizes import CUT, MISSING, UNREADABLE, fingerprint, header_of, look, write_atomically

SIZES = {"a,1": (40, 30), "b,2": (20, 50), "c,3": (7, 9)}


def image_sizes(images: dict[str, Path], caches: list[Path] = ()) -> tuple[dict[str, tuple], dict[str, str]]:
    headers, problems = look(images, caches)
    return {name: header.size for name, header in headers.items()}, problems


@pytest.fixture
def images(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "Images"
    folder.mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size).save(folder / f"{name}.jpg")
    return {name: folder / f"{name}.jpg" for name in SIZES}


@pytest.fixture
def headers(monkeypatch) -> list[str]:
    """Names of the files whose headers were read."""
    read = []

    def counted(path: Path) -> tuple[int, int, int]:
        read.append(path.stem)
        return header_of(path)

    monkeypatch.setattr(module, "header_of", counted)
    return read


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_what_the_pipeline_loads(tmp_path, orientation):
    """EXIF may turn an image; OpenCV follows it."""
    exif = Image.Exif()
    exif[module.ORIENTATION] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(path, exif=exif)
    height, width = mmcv.imread(path).shape[:2]
    assert header_of(path) == (width, height, orientation)
    assert (width, height) == ((40, 30) if orientation < 5 else (30, 40))


def test_damaged_exif_is_passed_over(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=b"Exif\x00\x00not a TIFF header")
    assert header_of(path) == (40, 30, 1)


def test_only_the_header_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((400, 300), 80).save(path)
    os.truncate(path, 1000)
    assert header_of(path) == (400, 300, 1)


def test_second_call_reads_no_header(images, headers, tmp_path):
    cache = tmp_path / "sizes.json"
    assert image_sizes(images, [cache]) == (SIZES, {})
    assert headers == list(SIZES)
    assert image_sizes(images, [cache]) == (SIZES, {})
    assert headers == list(SIZES)
    assert {p.name for p in tmp_path.iterdir()} == {"Images", "sizes.json"}


def test_changed_images_are_read_again(images, headers, tmp_path):
    cache = tmp_path / "sizes.json"
    image_sizes(images, [cache])
    headers.clear()
    state = images["a,1"].stat()
    Image.new("RGB", (41, 30)).save(images["a,1"])
    os.utime(images["a,1"], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    images["b,2"].unlink()
    assert image_sizes(images, [cache]) == ({"a,1": (41, 30), "c,3": (7, 9)}, {"b,2": MISSING})
    assert headers == ["a,1"], "by date"
    data = images["c,3"].read_bytes()
    date = images["c,3"].stat().st_mtime_ns
    images["c,3"].write_bytes(data + b"\0")
    os.utime(images["c,3"], ns=(date, date))
    image_sizes(images, [cache])
    assert headers == ["a,1", "c,3"], "by length"


def test_a_part_does_not_forget_the_rest(images, headers, tmp_path):
    cache = tmp_path / "sizes.json"
    for names in (["a,1", "b,2"], ["c,3"], list(images)):
        image_sizes({name: images[name] for name in names}, [cache])
    assert headers == list(SIZES)


@pytest.mark.parametrize("text", ["", "{cut", "[1]", '{"a,1": 5}', '{"a,1": [1, 2, 3, "x"]}', "\xff"])
def test_damaged_cache_is_no_error(images, tmp_path, text):
    cache = tmp_path / "sizes.json"
    cache.write_text(text, encoding="latin1")
    assert image_sizes(images, [cache])[0] == SIZES
    assert json.loads(cache.read_text())["a,1"][:2] == [40, 30]


def test_unreadable_images(images, tmp_path):
    images["a,1"].write_bytes(b"")
    images["b,2"].write_bytes(b"<html>quota exceeded</html>")
    cache = tmp_path / "sizes.json"
    for _ in range(2):
        sizes, problems = image_sizes(images, [cache])
        assert sizes == {"c,3": (7, 9)}
        assert problems == {"a,1": UNREADABLE, "b,2": UNREADABLE}


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_cut_files(tmp_path, suffix):
    """Their headers are whole."""
    path, noise = tmp_path / f"a.{suffix}", Image.effect_noise((400, 300), 80).convert("RGB")
    noise.save(path)
    whole = path.read_bytes()
    assert look({"a": path})[1] == {}
    for share in (0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        headers, problems = look({"a": path})
        # of WebP, already the header says how long the file must be
        assert not headers
        assert problems["a"] in (CUT, UNREADABLE)


def test_filled_up_files_are_whole(images):
    """Bytes behind the end of a JPEG do no harm."""
    for name, more in (("a,1", b"\0" * 64), ("b,2", b"a thumbnail")):
        images[name].write_bytes(images[name].read_bytes() + more)
    assert image_sizes(images) == (SIZES, {})


def test_fingerprint_is_of_content(images, tmp_path):
    first = fingerprint(look(images)[0])
    os.utime(images["a,1"], ns=(1, 1))
    assert fingerprint(look(images)[0]) == first
    Image.new("RGB", SIZES["a,1"], "red").save(images["a,1"])
    assert fingerprint(look(images)[0]) != first


def test_read_only_folder(images, headers, tmp_path, monkeypatch):
    """What cannot be written beside the annotations is remembered elsewhere, and nothing is left behind."""
    fixed, other = tmp_path / "fixed", tmp_path / "work" / "deep" / "sizes.json"
    fixed.mkdir()
    write = Path.write_text

    def refuse(path: Path, *args, **kwargs) -> int:
        if path.parent == fixed:
            raise PermissionError(f"read-only: {path}")
        return write(path, *args, **kwargs)

    # File modes do not stop a privileged user, so the refusal is made by hand.
    monkeypatch.setattr(Path, "write_text", refuse)
    for _ in range(2):
        assert image_sizes(images, [fixed / "sizes.json", other])[0] == SIZES
    assert headers == list(SIZES)
    assert other.is_file()
    assert not list(fixed.iterdir())
    assert image_sizes(images, [fixed / "sizes.json"])[0] == SIZES, "nowhere to write is no error"


def test_no_cache(images, headers, tmp_path):
    for _ in range(2):
        assert image_sizes(images)[0] == SIZES
    assert len(headers) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["Images"]


def test_interrupted_reading_is_kept(images, headers, tmp_path, monkeypatch):
    cache, read = tmp_path / "sizes.json", module.header_of

    def interrupted(path: Path) -> tuple[int, int, int]:
        if path.stem == "c,3":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(module, "header_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image_sizes(images, [cache])
    assert set(json.loads(cache.read_text())) == {"a,1", "b,2"}


def test_writers_do_not_meet(tmp_path):
    """Readers see one text or another, whole; no part is left."""
    path = tmp_path / "x.json"
    texts = [json.dumps([i] * 20_000) for i in range(4)]
    write_atomically(path, texts[0])
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(write_atomically, path, texts[i % 4]) for i in range(80)]
        seen = [path.read_text() for _ in range(200)]
        for job in jobs:
            job.result()
    assert set(seen) <= set(texts)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
