"""The page of all experiments, on made-up trees, and the committed one."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support import report_tree as tree

from benchmark import front
from benchmark.evidence import experiments
from benchmark.evidence.record import ReportError

REPOSITORY = Path(__file__).parents[2]
CLAIMS = "name,claim,source,paper,where,published,unit,bound,value,low,high,seeds,verdict\n"


def asked(root: Path) -> None:
    """Settings that ask for the records as they are."""
    path = root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for run, (method, inherit, *_) in tree.RUNS.items():
        content["runs"][run] |= {"method": method, "inherit": inherit}
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def titles(root: Path, **entries: dict | None) -> None:
    folder = root / "experiments"
    folder.mkdir(exist_ok=True)
    (folder / "titles.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A default experiment that is whole, one under way, one that has not begun."""
    for folder in (tmp_path, *(tmp_path / "experiments" / name for name in ("half", "later"))):
        folder.mkdir(parents=True, exist_ok=True)
        tree.build(folder)
        asked(folder)
    (tmp_path / "experiments" / "half" / "results" / "runs" / "pgd-1.json").unlink()
    shutil.rmtree(tmp_path / "experiments" / "later" / "results")
    (tmp_path / "results" / "claims.csv").write_text(
        CLAIMS + "late,It waits,here,True,there,+3.6,AP,0.0,,,,,not measured yet\n"
        "one,It <helps>,here,True,there,+3.6,AP,0.0,3.1,1.0,5.0,3,undecided\n"
        "two,It is so,here,True,there,,AP,0.0,3.1,1.0,5.0,3,reproduced\n"
        "two,It is so,here,True,elsewhere,,AP,0.0,,,,,not measured yet\n"
    )
    titles(tmp_path, **{".": {"title": "The first", "sentence": "It is whole."}})
    return tmp_path


def page(root: Path) -> str:
    found = experiments.load_experiments(root / "experiments")
    return front.front(found, root / "results" / "claims.csv", root / "results" / "index.html")


def card(text: str, name: str) -> str:
    return re.search(rf'<article class="card" id="{name}">.*?</article>', text, re.DOTALL).group()


def test_titles_give_the_order_and_other_experiments_follow(root):
    found = experiments.load_experiments(root / "experiments")
    assert [one.name for one in found] == [".", "half", "later"]
    assert [one.title.title for one in found] == ["The first", "half", "later"]


def test_what_is_not_kept_is_not_told(root):
    titles(root, **{".": {"title": "The first"}, "half": {"title": "A try", "kept": False}})
    assert [one.name for one in experiments.load_experiments(root / "experiments")] == [".", "later"]


def test_a_whole_experiment_says_nothing_of_what_it_lacks(root):
    own = card(page(root), "default")
    assert "It is whole." in own
    assert "Stale" not in own
    assert "Under way" not in own


@pytest.mark.slow
def test_what_others_measured_stands_beside_ours(root):
    assert "Measured by others" not in page(root)
    theirs = root / "results" / "others" / "ann" / "runs"
    theirs.mkdir(parents=True)
    for seed, ap in ((0, 26.0), (1, 27.0)):
        content = json.loads((root / "results" / "runs" / f"pgd-{seed}.json").read_text())
        content["accuracy"]["AP"] = ap
        content["environment"] = {"gpu": "a <big> card"}
        (theirs / f"pgd-{seed}.json").write_text(json.dumps(content))
    own = card(page(root), "default")
    assert "Measured by others (1)" in own
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", own[own.index("Measured by others") :])
    assert cells[6:] == ["pgd", "ann", "26.5", "28.0", "2", "a &lt;big&gt; card"]
    assert "+4.0" in own, "ours are as they were"


def test_what_others_measured_is_shown_where_we_have_nothing(root):
    theirs = root / "experiments" / "later" / "results" / "others" / "ann" / "runs"
    theirs.mkdir(parents=True)
    shutil.copy(root / "results" / "runs" / "pgd-0.json", theirs)
    own = card(page(root), "later")
    assert "No results here yet" in own
    assert "Measured by others (1)" in own
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", own[own.index("Measured by others") :])
    assert cells[6:11] == ["pgd", "ann", "27.0", "\u2013", "1"], "of ours there is none"


def test_gains_are_those_of_a_hand(root):
    found, zero = front.gains(experiments.load_experiments(root / "experiments")[0].table)
    assert [(one["run"], one["gain"]) for one in found] == [("pgd", "+4.0")]
    # the interval by t holds zero
    assert found[0]["unresolved"]
    assert found[0]["reach"][0] < zero < found[0]["at"]


def test_gains_are_sorted_and_share_a_scale():
    table = pd.DataFrame(
        {
            "run": ["a", "b", "teacher"],
            "AP": [20.0, 24.0, 30.0],
            "baseline": ["plain", "plain", None],
            "method_place": ["neck"] * 3,
            "gain": [-1.0, 3.0, None],
            "gain_low": [-2.0, None, None],
            "gain_high": [0.5, None, None],
        }
    )
    plain = pd.DataFrame({"run": ["plain"], "AP": [21.0]})
    found, zero = front.gains(pd.concat([plain, table]))
    assert [one["over"] for one in found] == ["plain (21.0 AP)"] * 2
    assert [one["run"] for one in found] == ["b", "a"]
    # from -2 to 3
    assert zero == pytest.approx(4 + 92 * 2 / 5)
    assert [one["at"] for one in found] == pytest.approx([96, 4 + 92 / 5], abs=0.01)
    assert [one["unresolved"] for one in found] == [True, True]


def test_a_loss_larger_than_the_best_gain_does_not_rule_the_scale():
    table = pd.DataFrame(
        {"run": ["a", "b", "c"], "AP": 20.0, "baseline": "a", "method_place": "neck", "gain": [1.0, -0.5, -9.0]}
    )
    found, zero = front.gains(table.assign(gain_low=table["gain"] - 0.2, gain_high=table["gain"] + 0.2))
    # from -0.7 to 1.2
    assert zero == pytest.approx(4 + 92 * 0.7 / 1.9, abs=0.01)
    assert found[1]["at"] == pytest.approx(4 + 92 * 0.2 / 1.9, abs=0.01)
    assert found[2]["gain"] == "\u22129.0"
    assert found[2]["at"] is None
    assert found[2]["reach"] is None


def test_an_experiment_under_way_shows_what_is_there(root):
    own = card(page(root), "half")
    assert "Under way: 6 of 7 records are there." in own
    # of the shared seed alone
    assert "<td>+3.0</td>" in own


def test_an_experiment_without_records_says_so(root):
    assert "No results here yet" in card(page(root), "later")


def test_records_of_other_settings_are_called_stale(root):
    path = root / "experiments" / "half" / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["pairs"]["gfl"]["student"]["iterations"] = 500
    path.write_text(yaml.safe_dump(content))
    own = card(page(root), "half")
    # the teacher is as it was
    assert "Stale: 5 of 6 records" in own
    assert "iterations 400, now 500" in own


def test_a_setting_that_is_asked_for_is_compared(root):
    path = root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["runs"]["pgd"]["settings"] = {"topk": 8}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    found = experiments.load_experiments(root / "experiments")[0]
    assert found.stale == {"pgd-0": ["topk 9, now 8"], "pgd-1": ["topk 9, now 8"]}


def test_an_unreadable_record_is_told(root):
    path = root / "experiments" / "half" / "results" / "runs" / "pgd-0.json"
    path.write_text(json.dumps({"version": 1}))
    assert "no record of version 2" in card(page(root), "half")


def claim_of(text: str, name: str) -> str:
    """A claim with what is folded into it."""
    return next(one for one in re.findall(r'<details class="claim">.*?</details>', text, re.DOTALL) if name in one)


def test_decided_claims_come_first_and_what_waits_is_folded(root):
    text = page(root)
    shown, waiting = text.split('<details class="folded">', 1)
    assert shown.index("It is so") < shown.index("It &lt;helps&gt;")
    assert "It waits" not in shown
    assert "It waits" in waiting
    assert "elsewhere" in waiting


def test_a_claim_shows_what_speaks_for_it_and_folds_the_rest(root):
    path = root / "results" / "claims.csv"
    path.write_text(
        path.read_text() + "three,It varies,here,True,first place,,AP,0.0,1.0,-1.0,3.0,3,undecided\n"
        "three,It varies,here,True,second place,,AP,0.0,-4.0,-5.0,-3.0,3,contradicted\n"
    )
    summary, folded = claim_of(page(root), "It varies").split("</summary>")
    assert "second place" in summary
    assert "first place" not in summary
    assert re.findall(r'class="word \w+">([^<]*)<', summary) == ["contradicted", "undecided"]
    assert re.findall(r'class="text place">(\w+ place)', folded) == ["first place", "second place"]


@pytest.mark.slow
def test_the_first_screen_has_gains_and_costs_and_leads_to_every_card(root):
    columns = "run,method,extra_parameters,step_ms,step_ratio,peak_mb,extra_mb\n"
    (root / "results" / "cost.csv").write_text(columns + "pgd,pgd,0,150.0,1.5,420.0,120.0\n")
    text = page(root)
    top = text[: text.index('<section id="experiments">')]
    assert re.search(r'<section id="gains">.*?The first.*?<td>\+4\.0</td>', top, re.DOTALL)
    assert re.search(r'<section id="cost">.*?base64,.*?The first', top, re.DOTALL)
    leads = re.findall(r'href="#([^"]+)"', top[: top.index("</nav>")])
    assert leads == ["claims", "gains", "cost", "default", "half", "later"]
    assert all(f'id="{one}"' in text for one in leads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(("half", "."), ["half", "The first"]), (("later", "half"), ["half"]), (("later",), ["The first"])],
)
def test_whose_gains_open_the_page(root, monkeypatch, wanted, expected):
    monkeypatch.setattr(front, "GAINS", wanted)
    assert re.findall(r"<h2>Gains: <a [^>]*>([^<]+)</a>", page(root)) == expected


def test_without_costs_there_is_no_figure_of_them(root):
    assert 'id="cost"' not in page(root)


def test_gains_over_one_baseline_stand_together():
    gained = {"a": ("few", 9.0), "b": ("many", 1.0), "c": ("many", 2.0), "d": ("few", 8.0), "e": ("many", -1.0)}
    runs = [{"run": run, "baseline": base, "gain": gain} for run, (base, gain) in gained.items()]
    plain = [{"run": name, "baseline": None, "gain": float("nan")} for name in ("few", "many")]
    table = pd.DataFrame([*plain, *runs]).assign(AP=20.0, method_place="neck", gain_low=0.0, gain_high=0.0)
    assert [one["run"] for one in front.gains(table)[0]] == list("cbead")
    found, zero = front.gains(table, among=["b", "c"])
    assert [one["run"] for one in found] == ["c", "b"]
    # on a scale of their own
    assert (zero, found[0]["at"]) == (4, 96)


def test_variations_are_folded_away_before_methods(monkeypatch):
    monkeypatch.setattr(front, "MANY", 8)
    notes = {"b": "a variation", "d": "another", "e": "a third"}
    shown, folded = front.told("abcdefghij", notes)
    # all methods, the best variation, and their order in both parts
    assert shown == list("abcfghij")
    assert folded == list("de")
    assert front.told("abcdefgh", notes) == (list("abcdefgh"), [])
    assert front.first("abcdefghij", notes) == list("acfghij")
    assert front.first("bd", notes) == ["b", "d"], "nothing else"


def test_a_card_says_what_a_run_is(root):
    path = root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["runs"]["pgd"]["note"] = "with <all> its parts"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert "pgd<small>with &lt;all&gt; its parts</small>" in card(page(root), "default")


def test_without_verdicts_the_page_names_the_remedy(root):
    (root / "results" / "claims.csv").unlink()
    assert "python -m benchmark.claims" in page(root)


def test_a_foreign_table_of_verdicts_is_named(root):
    (root / "results" / "claims.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ReportError, match=r"claims\.csv is not what"):
        page(root)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({".": {"title": "x", "sentense": "y"}}, "sentense"),
        ({".": {"sentence": "y"}}, "title"),
        ({"gone": {"title": "x"}}, "there is no experiment 'gone'"),
    ],
)
def test_a_wrong_title_is_named(root, entries, message):
    titles(root, **entries)
    with pytest.raises(ReportError, match=message):
        experiments.load_experiments(root / "experiments")


def without_pictures(text: str) -> str:
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)


@pytest.fixture(scope="module")
def committed() -> str:
    return (REPOSITORY / "results" / "index.html").read_text()


@pytest.mark.slow
def test_the_committed_page_follows_from_the_committed_records(tmp_path, monkeypatch, committed):
    monkeypatch.chdir(REPOSITORY)
    folder = Path("experiments")
    text = front.front(experiments.load_experiments(folder), Path("results/claims.csv"), Path("results/index.html"))
    assert without_pictures(text) == without_pictures(committed), (
        "results/index.html is not what `python -m benchmark.front` writes; run it and commit the result"
    )


def test_the_committed_page_stands_alone(committed):
    assert not re.search(r"(src|href|srcset|url)\W{1,3}(https?:)?//", committed)


@functools.cache
def tracked() -> tuple[str, ...]:
    answer = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files"], capture_output=True, text=True)
    return tuple(answer.stdout.splitlines())


@pytest.mark.parametrize("name", [one for one in tracked() if one.endswith(".html") and "results/" in one])
def test_every_link_of_a_committed_page_leads_to_a_committed_file(name):
    text = (REPOSITORY / name).read_text()
    targets = set(re.findall(r'href="([^"#:]+)"', text))
    assert len(targets) > 10
    places = {one: os.path.normpath(Path(name).parent / one) for one in targets}
    lost = sorted(one for one, place in places.items() if Path(place).as_posix() not in tracked())
    assert not lost, f"{name} is to be written anew by `python -m benchmark.{'front' if 'index' in name else 'report'}`"
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert not [one for one in anchors if f'id="{one}"' not in text]


@pytest.mark.slow
def test_every_experiment_has_a_title(committed):
    found = experiments.load_experiments(REPOSITORY / "experiments")
    assert not [one.name for one in found if not one.title.sentence]
