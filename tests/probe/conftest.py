"""A detector that somebody brings, and what the stage `key_regions` says of it; made once, changed by nobody."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from support.brought import arguments, bring

from benchmark import key_regions


@pytest.fixture(scope="session")
def brought(tmp_path_factory) -> SimpleNamespace:
    """Files and what mmdet itself finds with them."""
    return bring(tmp_path_factory.mktemp("brought"))


@pytest.fixture(scope="session")
def results(brought, tmp_path_factory) -> Path:
    """Of two detectors: the same under two names, one of them in batches and by one mode."""
    out = tmp_path_factory.mktemp("results")
    key_regions.main([*arguments(brought), "--out", str(out)])
    few = ["--percents", "100", "5", "--modes", "predictions", "--draws", "2", "--seed", "7"]
    key_regions.main([*arguments(brought, name="other"), *few, "--batch-size", "2", "--out", str(out)])
    return out
