"""How hard a method pulls, from curves whose figures are known by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmark.evidence import tables
from benchmark.evidence.pull import BAND, flag, pull
from benchmark.evidence.record import ReportError


def curve(tmp_path, key: str, **columns: list) -> None:
    folder = tmp_path / "curves"
    folder.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / f"{key}.csv", index=False)


def record(run: str, seed: int, losses: list[str], clip: float | None = 10.0) -> dict:
    own = {"run": run, "seed": seed, "key": f"{run}-{seed}", "role": "student", "method_title": run.upper()}
    return own | {"method_losses": losses, "clip_grad": clip}


def test_the_mean_over_seeds_of_first_and_last(tmp_path):
    """Twenty logged steps and a look at AP between them, which has no loss."""
    steps = range(21)
    for seed, factor in ((0, 1.0), (1, 3.0)):
        extra = [factor * value for value in [8.0, *[4.0] * 18, 2.0]]
        curve(
            tmp_path, f"a-{seed}", step=steps,
            loss=[2.0 + value for value in extra] + [None], loss_a=[*extra, None], loss_cls=[2.0] * 20 + [None],
            grad_norm=[11.0] * 5 + [9.0] * 15 + [None], AP=[None] * 20 + [30.0],
        )  # fmt: skip
    found = pull(pd.DataFrame([record("a", 0, ["loss_a"]), record("a", 1, ["loss_a"])]), tmp_path)
    assert found.to_dict("records") == [
        {"run": "a", "method_title": "A", "start": 8.0, "end": 3.0, "clipped": 0.25, "flag": ""}
    ], "the end is the median of the last two: (4 + 2) / 2 / 2, and three times that"


def test_without_a_method_and_without_a_clip(tmp_path):
    curve(tmp_path, "none-0", step=[10, 20], loss=[2.0, 1.0], loss_cls=[2.0, 1.0])
    found = pull(pd.DataFrame([record("none", 0, [], None)]), tmp_path)
    assert found[["start", "end"]].to_numpy().tolist() == [[0.0, 0.0]]
    assert found["clipped"].isna().all()
    assert tables.pulls(found).empty


@pytest.mark.parametrize(
    ("start", "end", "clipped", "said"),
    [
        (1.0, 1.0, 0.1, ""),
        (300.0, 1.0, 0.1, "outweighs the labels"),
        (1.0, 300.0, 0.9, "outweighs the labels, clipped most of the time"),
        (0.001, 0.002, 0.0, "hardly there"),
        (0.0, 0.0, 0.0, ""),
        (1.0, 1.0, float("nan"), ""),
    ],
)
def test_flags(start, end, clipped, said):
    assert flag(start, end, clipped) == said
    assert BAND[0] < 1 < BAND[1]


def test_a_missing_curve_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"a-0\.csv is missing"):
        pull(pd.DataFrame([record("a", 0, ["loss_a"])]), tmp_path)


def test_a_curve_without_the_losses_is_named(tmp_path):
    curve(tmp_path, "a-0", step=[10], loss=[1.0])
    with pytest.raises(ReportError, match="is no curve of a-0"):
        pull(pd.DataFrame([record("a", 0, ["loss_a"])]), tmp_path)
