"""What a record says of the machine."""

from __future__ import annotations

import importlib.metadata

import pytest

from benchmark import evaluate


@pytest.mark.parametrize(("installed", "found"), [("mmcv", "9.1"), ("mmcv-lite", "9.1"), ("other", None)])
def test_either_package_serves_mmcv(monkeypatch, installed, found):
    def version(name: str) -> str:
        if name != installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert evaluate.version("mmcv") == found


def test_every_library_and_the_hardware_are_named():
    record = evaluate.machine()
    assert all(record[name] for name in (*evaluate.LIBRARIES, "python", "platform", "cpu", "threads"))
