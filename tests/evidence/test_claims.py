"""Claims and their verdicts, on made-up records, and the committed page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support import report_tree as tree

from benchmark import claims as page
from benchmark.evidence import claims
from benchmark.evidence.experiments import Title, load_experiment
from benchmark.evidence.intervals import bootstrap_file
from benchmark.evidence.record import ReportError

REPOSITORY = Path(__file__).parents[2]


def bootstrap(results: Path, key: str, values: np.ndarray) -> None:
    path = bootstrap_file(results, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"AP": values}).to_csv(path, index=False)


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """Two seeds of three runs; an image costs or gives all of them the same."""
    root = tmp_path / "experiments" / "study"
    common = np.random.default_rng(0).normal(0, 2.0, 400)
    aps = {"plain": (50.0, 52.0), "inherit": (54.0, 55.0), "pgd": (57.0, 58.2)}
    for run, by_seed in aps.items():
        method, inherit = ("pgd" if run == "pgd" else "none"), ("none" if run == "plain" else "head+neck")
        for seed, ap in enumerate(by_seed):
            tree.write_run(root, tree.record(run, seed, method, inherit, ap))
            noise = np.random.default_rng(seed + len(run)).normal(0, 0.1, 400)
            bootstrap(root / "results", f"{run}-{seed}", ap + common + noise)
    tree.write_run(root, tree.record("teacher-gfl", 0, "none", "none", 61.0))
    bootstrap(root / "results", "teacher-gfl", 61.0 + common)
    return root.parent


def written(experiments: Path, **entries) -> dict[str, claims.Claim]:
    path = experiments / "claims.yaml"
    path.write_text(yaml.safe_dump(entries))
    return claims.load_claims(path)


def claim(*measured: dict, **more) -> dict:
    places = [{"experiment": "study", "where": "here", **one} for one in measured]
    return {"claim": "It helps", "source": "somewhere", "measured": places, **more}


def test_a_gain_and_its_verdicts(experiments):
    one = {"better": "pgd", "worse": "inherit"}
    asked = claim(one, one | {"bound": 3.1}, one | {"bound": 9.0}, {"better": "pgd", "worse": "nobody"})
    table = claims.verdicts(written(experiments, helps=asked), experiments)
    # 57 - 54 and 58.2 - 55
    assert table["value"][:3].tolist() == pytest.approx([3.1] * 3)
    assert table["seeds"].tolist()[:3] == [2] * 3
    assert table["verdict"].tolist() == [
        claims.REPRODUCED,
        claims.UNDECIDED,
        claims.CONTRADICTED,
        claims.NOT_MEASURED,
    ]
    # what images cost both is in neither: far narrower than their 2 points
    assert 0 < table["high"][0] - table["low"][0] < 1.5


def test_one_seed_gives_no_verdict(experiments):
    for run in ("pgd", "inherit"):
        (experiments / "study" / "results" / "runs" / f"{run}-1.json").unlink()
    asked = claim({"better": "pgd", "worse": "inherit"})
    row = claims.verdicts(written(experiments, helps=asked), experiments).iloc[0]
    assert row["verdict"] == claims.ONE_SEED
    assert row["value"] == pytest.approx(3.0)


def test_a_record_of_other_settings_counts_for_nothing(experiments):
    tree.write_params(experiments / "study", ["gfl"], ["plain", "inherit", "pgd"], 2)
    asked = written(experiments, helps=claim({"better": "pgd", "worse": "inherit"}))
    assert claims.verdicts(asked, experiments)["verdict"].tolist() == [claims.REPRODUCED]
    path = experiments / "study" / "results" / "runs" / "pgd-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": "another.py"}))
    assert claims.verdicts(asked, experiments)["verdict"].tolist() == [claims.NOT_MEASURED]


def test_seeds_that_nobody_asks_for_count_for_nothing(experiments):
    tree.write_params(experiments / "study", ["gfl"], ["plain", "inherit", "pgd"], 2)
    asked = written(experiments, helps=claim({"better": "pgd", "worse": "inherit"}))
    (before,) = claims.verdicts(asked, experiments).to_dict("records")
    for run, method in (("pgd", "pgd"), ("inherit", "none")):
        tree.write_run(experiments / "study", tree.record(run, 7, method, "head+neck", 90.0))
        bootstrap(experiments / "study" / "results", f"{run}-7", np.full(400, 90.0))
    (after,) = claims.verdicts(asked, experiments).to_dict("records")
    assert after == before


def test_readme_has_no_gain_of_other_settings(experiments):
    study = experiments / "study"
    tree.write_params(study, ["gfl"], ["plain", "inherit", "pgd"], 2)

    def told() -> list[str]:
        lines = page.gains(load_experiment("study", Title("The study"), study)).splitlines()
        return [line.split()[1] for line in lines if line.startswith("| ")][2:]

    assert told() == ["pgd", "inherit", "plain"]
    for path in (study / "results" / "runs").glob("inherit-*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"config": "another.py"}))
    assert told() == ["pgd", "plain"], "without a baseline pgd has no gain, but its AP"
    for path in (study / "results" / "runs").glob("*-[01].json"):
        path.unlink()
    assert told() == []


def test_what_is_resampled_counts_not_what_a_report_has_written(experiments):
    tree.write_params(experiments / "study", ["gfl"], ["plain", "inherit", "pgd"], 2)
    table = load_experiment("study", Title("The study"), experiments / "study").table
    wide = table.assign(gain_low=-9.0, gain_high=9.0)
    wide.to_csv(experiments / "study" / "results" / "table.csv", index=False)
    again = load_experiment("study", Title("The study"), experiments / "study").table
    pd.testing.assert_frame_equal(again, table)


def test_without_its_teacher_a_share_of_the_gap_waits(experiments):
    (experiments / "study" / "results" / "runs" / "teacher-gfl.json").unlink()
    asked = written(experiments, gap=claim({"share_of_gap": "pgd", "worse": "plain"}))
    assert claims.verdicts(asked, experiments)["verdict"].tolist() == [claims.NOT_MEASURED]


def test_runs_of_different_lengths_are_not_compared(experiments):
    tree.write_run(experiments / "study", tree.record("pgd", 1, "pgd", "head+neck", 58.2) | {"iterations": 7})
    asked = written(experiments, helps=claim({"better": "pgd", "worse": "inherit"}))
    with pytest.raises(ReportError, match=r"pgd-0 and pgd-1 cannot be compared: iterations \d+ and 7; train one anew"):
        claims.verdicts(asked, experiments)


def test_the_share_of_the_gap(experiments):
    table = claims.verdicts(
        written(experiments, gap=claim({"share_of_gap": "pgd", "worse": "plain", "bound": 50.0})), experiments
    )
    # means: pgd 57.6, plain 51, teacher 61
    assert table["value"][0] == pytest.approx(100 * 6.6 / 10)
    assert table["verdict"][0] == claims.REPRODUCED
    assert table["unit"][0] == "% of the gap"


def test_a_miss_rate_counts_downwards(tmp_path):
    tree.build(tmp_path)
    tree.add_crowd(tmp_path)
    results = tmp_path / "results"
    for run, by_seed in {"crowd-plain": (60.0, 58.0), "crowd-pgd": (57.0, 53.0)}.items():
        for seed, mr in enumerate(by_seed):
            path = bootstrap_file(results, f"{run}-{seed}")
            path.parent.mkdir(exist_ok=True)
            pd.DataFrame({"AP": [1.0] * 50, "MR": [mr] * 50}).to_csv(path, index=False)
    value, resampled, seeds = claims.gain(results, "crowd-pgd", "crowd-plain", "MR")
    assert value == pytest.approx(4.0)
    assert (resampled > 0).all()
    assert seeds == 2


def test_key_regions_against_all_and_against_a_control(experiments):
    rows = [
        ("predictions", "top", 1.0, 0.5, 0.2, 0.9, 0.0, 0.0, 0.0),
        ("predictions", "random", 1.0, -9.0, -11.0, -8.0, 9.5, 8.0, 12.0),
        ("predictions", "random", 1.0, -8.0, -10.0, -7.0, 8.5, 7.5, 10.0),
    ]
    names = ["mode", "selection", "percent", "change", "change_low", "change_high"]
    names += ["behind_top", "behind_top_low", "behind_top_high"]
    folder = experiments / "study" / "results" / "key_regions"
    folder.mkdir()
    pd.DataFrame(rows, columns=names).to_csv(folder / "m.csv", index=False)

    def kept(than: str, percent: float = 1.0) -> tuple[float, float, float]:
        return claims.kept(folder.parent, claims.Regions("m", "predictions", percent, than))

    assert kept("all") == pytest.approx((0.5, 0.2, 0.9))
    assert kept("random") == pytest.approx((9.0, 7.5, 12.0))
    with pytest.raises(claims.Missing, match="at 2%"):
        kept("all", 2.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (claim({"better": "pgd", "wurse": "inherit"}), "helps.measured.0.wurse"),
        (claim({"better": "pgd"}), "worse: missing"),
        (claim({"better": "pgd", "worse": "plain", "share_of_gap": "pgd"}), "one of better, share_of_gap and regions"),
        ({"claim": "It helps"}, "helps.source"),
    ],
)
def test_a_wrong_entry_is_named(experiments, entry, message):
    with pytest.raises(ReportError, match=message):
        written(experiments, helps=entry)


def test_the_page_tells_every_claim(experiments):
    asked = written(
        experiments, helps=claim({"better": "pgd", "worse": "inherit", "published": "+3.6"}), far=claim(needs="A ship.")
    )
    text = page.sections(asked, claims.verdicts(asked, experiments))
    assert "| here | +3.6 | +3.1 AP |" in text
    assert "**reproduced**" in text
    assert "**Not testable here**: A ship." in text


def test_readme_shows_what_came_out_and_what_is_decided_first(experiments):
    one = {"better": "pgd", "worse": "inherit"}
    asked = written(
        experiments,
        open=claim(one | {"better": "nobody"}, one | {"bound": 3.1, "where": "there"}),
        helps=claim(one | {"bound": 3.1}, one),
        far=claim(needs="A ship."),
        later=claim(one | {"better": "nobody"}),
    )
    block = page.found(claims.verdicts(asked, experiments))
    rows = [line for line in block.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 2
    assert rows[0].startswith("| It helps | here | +3.1 AP [+"), "of a claim the first that is decided"
    assert rows[0].endswith("| **reproduced** | 1 reproduced, 1 undecided |")
    assert rows[1].startswith("| It helps | there | +3.1 AP (bound +3.1) [+"), "where none is, the first undecided"
    assert rows[1].endswith("| **undecided** | 1 undecided |")
    assert "(results/claims.md)" in block


def test_undecided_claims_push_out_no_decided_one(experiments):
    one = {"better": "pgd", "worse": "inherit"}
    entries = {f"o{i}": claim(one | {"bound": 3.1}) for i in range(page.ROWS)} | {"helps": claim(one)}
    block = page.found(claims.verdicts(written(experiments, **entries), experiments))
    assert block.count("**reproduced**") == 1
    assert block.count("**undecided**") == page.ROWS - 1


def test_readme_shows_eight_claims_at_most(experiments):
    many = {f"c{i}": claim({"better": "pgd", "worse": "inherit"}) for i in range(page.ROWS + 1)}
    block = page.found(claims.verdicts(written(experiments, **many), experiments))
    assert block.count("**reproduced**") == page.ROWS


def test_readme_says_when_nothing_is_measured(experiments):
    asked = written(experiments, far=claim(needs="A ship."))
    assert page.found(claims.verdicts(asked, experiments)).startswith("Nothing is measured yet.")


def test_other_detectors_have_a_row_each():
    """Those of which nothing inherits yet have none."""
    names = ["pair", "method", "method_title", "inherit", "AP", "gain", "gain_low", "gain_high"]
    rows = [
        ("gfl", "none", "none", "none", 50.0, None, None, None),
        ("fcos", "none", "none", "none", 40.0, None, None, None),
        ("fcos", "none", "none", "head+neck", 44.0, None, None, None),
        ("fcos", "pgd", "PGD", "head+neck", 45.0, 1.0, 0.5, 1.5),
        ("fcos", "pgd", "PGD", "none", 43.0, 3.0, 2.0, 4.0),
        ("ddod", "none", "none", "none", 41.0, None, None, None),
        ("ddod", "none", "none", "head+neck", 46.0, None, None, None),
        ("atss", "none", "none", "none", 42.0, None, None, None),
    ]
    table = pd.DataFrame(rows, columns=names)
    assert page.other_pairs(table).splitlines()[2:] == [
        "| Pair | alone | inheriting | PGD |",
        "| --- | ---: | ---: | ---: |",
        "| fcos | 40.0 | 44.0 | +1.0 [+0.5, +1.5] |",
        "| ddod | 41.0 | 46.0 | \u2013 |",
        "",
    ]
    assert page.other_pairs(table[table["pair"] != "fcos"].head(1)) == ""


def test_the_block_is_replaced():
    assert page.with_found("a\n<!-- found -->\nold\n<!-- /found -->\nb\n", "new\n") == (
        "a\n<!-- found -->\nnew\n<!-- /found -->\nb\n"
    )


@pytest.mark.parametrize("text", ["", "<!-- found -->", "<!-- /found --> <!-- found -->"])
def test_a_readme_without_the_marks_is_refused(text):
    with pytest.raises(ReportError, match="put them in"):
        page.with_found(text, "new\n")


@pytest.mark.slow
def test_the_committed_page_follows_from_the_committed_records(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    readme = tmp_path / "README.md"
    readme.write_text((REPOSITORY / "README.md").read_text())
    monkeypatch.setattr("sys.argv", ["claims", "--out", str(tmp_path / "results"), "--readme", str(readme)])
    page.main()
    for name in ("results/claims.md", "results/claims.csv", "README.md"):
        assert (tmp_path / name).read_text() == (REPOSITORY / name).read_text(), (
            f"{name} is not what `python -m benchmark.claims` writes; run it and commit the result"
        )
