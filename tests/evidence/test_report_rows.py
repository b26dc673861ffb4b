"""Rows of the report's page: what they say and link, what the filter finds them by, and in a browser what it keeps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.report_tree import RUNS, build, run_report, write_json

from benchmark import report
from benchmark.figures.page_tables import choices
from benchmark.report import repository

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    """Results of which no figure is drawn, which takes longer than all else."""
    monkeypatch.setattr(report, "figures", lambda *_: {})
    build(tmp_path)
    return tmp_path


def row_of(page: str, run: str) -> str:
    """A run's row of the first table."""
    return re.search(
        rf'<tr[^>]*>\s*<th scope="row"[^>]*>(?:(?!</tr>).)*#settings-{run}".*?</tr>', page, re.DOTALL
    ).group()


def test_a_row_says_what_it_is_and_what_it_was_trained_with(tree):
    params = yaml.safe_load((tree / "params.yaml").read_text())
    params["runs"]["pgd"] = (params["runs"]["pgd"] or {}) | {"note": "with <all> its parts"}
    (tree / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for seed, revision in enumerate(("0123456789ab", "fedcba987654")):
        path = tree / "results" / "runs" / f"pgd-{seed}.json"
        content = json.loads(path.read_text())
        content["environment"]["git_revision"] = revision
        write_json(path, content)
    run_report(tree)
    page = (tree / "results" / "report.html").read_text()
    row = row_of(page, "pgd")
    assert "<small>with &lt;all&gt; its parts</small>" in row
    assert re.findall(r"<code[^>]*>(\w+)</code>", row) == ["0123456", "fedcba9"]
    assert "<code" not in row_of(page, "inherit")
    assert "<small>" not in row_of(page, "inherit")


def test_a_row_is_found_by_what_it_does_not_show(tree):
    run_report(tree)
    page = (tree / "results" / "report.html").read_text()
    words = {run: re.search(r'data-words="([^"]*)"', row_of(page, run)).group(1) for run in ("teacher-gfl", *RUNS)}
    assert words["pgd"].split() == [
        *("place:key-regions", "key", "regions", "(PGD)", "pgd", "PGD"),
        *("dataset:mini", "detector:gfl", "pair:gfl", "mini", "gfl", "COCO&#39;s", "metric", "coco", "gfl"),
    ]
    assert words["inherit"].startswith("place:no-method no method none")
    assert "place:" not in words["teacher-gfl"]
    assert re.findall(r'data-fill="([^"]*)"', page) == ["place:no-method", "place:key-regions"]


def test_rows_can_be_chosen_by_what_divides_them():
    rows = {"dataset": ["a", "a", "b"], "detector": ["gfl"] * 3, "pair": ["a-gfl", "a-gfl", "b"]}
    assert choices(pd.DataFrame(rows)) == {"data set": [("a", "dataset:a"), ("b", "dataset:b")]}
    rows["pair"] = ["a", "a-half", "b"]
    assert list(choices(pd.DataFrame(rows))) == ["data set", "pair"]


def test_links_lead_into_the_repository_of_the_experiment(tmp_path, monkeypatch):
    """Whoever imports the package may have another checkout of it."""
    monkeypatch.setattr(report, "figures", lambda *_: {})
    folder = tmp_path / "experiments" / "own"
    folder.mkdir(parents=True)
    build(folder)
    for name in ("pgd/methods/pgd.py", "gfl.py", "pyproject.toml", "notebooks/01_one.ipynb", "results/index.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "experiments" / "titles.yaml").write_text("own: {title: One's own}\n")
    assert repository(folder) == tmp_path
    assert repository(REPOSITORY / "experiments" / "study") == REPOSITORY
    run_report(folder)
    page = (folder / "results" / "report.html").read_text()
    links = {one for one in re.findall(r'<a href="([^"#]+)"', page) if one.startswith("..")}
    up = "../../../"
    assert links == {
        f"{up}{n}" for n in ("pgd/methods/pgd.py", "gfl.py", "notebooks/01_one.ipynb", "results/index.html")
    }
    assert "<h1>One&#39;s own</h1>" in page


CLICKS = """<script>
const rows = () => [...document.querySelectorAll("#results-1 tbody tr")].filter((row) => !row.hidden);
const shown = () => rows().map((row) => row.querySelector("th a").textContent).join(" ");
const [place, field] = [document.querySelector("[data-fill='place:key-regions']"), document.querySelector(".filter")];
const found = [];
place.click();
found.push(`${shown()}, ${field.value}, ${place.ariaPressed}`);
place.click();
found.push(`${shown()}, ${field.value}, ${place.ariaPressed}`);
for (const word of ["pair:gfl", "pair:gf"]) {
  field.value = word;
  place.click();
  found.push(`${shown()}, ${field.value}`);
}
field.value = "COCO mini key";
field.dispatchEvent(new Event("input"));
found.push(shown());
document.querySelector("#results-1 thead button").click();
field.value = "";
field.dispatchEvent(new Event("input"));
found.push(shown());
document.title = found.join("; ");
</script>"""


def dump(page: Path, tmp_path: Path) -> subprocess.CompletedProcess:
    """A page as a browser leaves it when its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
    return subprocess.run(["chromium", *flags, page.as_uri()], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_page_in_a_browser(tmp_path):
    build(tmp_path)
    run_report(tmp_path)
    out = dump(tmp_path / "results" / "report.html", tmp_path)
    assert out.stdout.count("<img ") == 3
    assert out.stdout.count("<details>") == 4
    assert "CONSOLE" not in out.stderr
    assert "Uncaught" not in out.stderr
    assert "SEVERE" not in out.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_dots_and_words_filter_rows(tree, tmp_path):
    run_report(tree)
    clicked = tmp_path / "page.html"
    clicked.write_text((tree / "results" / "report.html").read_text().replace("</body>", f"{CLICKS}</body>"))
    title = re.search(r"<title>(.*?)</title>", dump(clicked, tmp_path).stdout).group(1)
    every = "teacher-gfl plain inherit pgd"
    assert title.split("; ") == [
        "pgd, place:key-regions, true",
        f"{every}, , false",
        "pgd, pair:gfl place:key-regions",
        ", pair:gf place:key-regions",
        "pgd",
        "inherit pgd plain teacher-gfl",
    ]
