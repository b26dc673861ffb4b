"""The same small budget for every method: five loss weights, short runs, a held-out part of the training set.

``python -m benchmark.tune fitnet fgd ld pgd`` needs a trained teacher (`dvc repro match`). For each method it trains
one short student a weight on the first 85% of the training images, evaluates on the other 15% (never on val), and adds
a row to ``results/tuning.csv``. What is there already is not trained again. The winners go into params.yaml by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from benchmark.cli import run_cli
from benchmark.config import DatasetInfo
from benchmark.settings import Params, Run, SettingsError, load

HELD_OUT = 0.15
#: Multiples of a method's scaled weight that are tried, more below than above: the published weights were tuned for
#: trainings a hundred times as long.
FACTORS = (0.0014, 0.0065, 0.03, 0.14, 0.65, 3.0, 14.0)
#: Weights of the full scale carried over to 32 channels by the rule in docs/mini-setting.md.
SCALED = {"fitnet": 1.0, "fgd": 8e-3, "ld": 1.0, "pgd": 0.32}


def split_train(data: DatasetInfo, folder: Path) -> DatasetInfo:
    """A data set whose train and val are parts of ``data``'s train."""
    content = json.loads(Path(data.train_annotations).read_text())
    images = content["images"]
    cut = round(len(images) * (1 - HELD_OUT))
    paths = {}
    for name, part in (("train", images[:cut]), ("val", images[cut:])):
        ids = {i["id"] for i in part}
        kept = [a for a in content["annotations"] if a["image_id"] in ids]
        paths[name] = folder / f"{name}.json"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text(json.dumps({**content, "images": part, "annotations": kept}))
    return replace(
        data,
        name=f"{data.name} (held out)",
        train_annotations=str(paths["train"]),
        val_annotations=str(paths["val"]),
        val_images=data.train_images,
    )


def _trial(params: Params, name: str, home: str) -> dict:
    """Train and evaluate one trial in the folder ``home``; runs in a process of its own."""
    import torch

    os.chdir(home)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    from benchmark.evaluate import evaluate
    from benchmark.train import train

    job = params.student(name)
    train(job)
    return evaluate(job)


def trials(methods: list[str], params: Params, pair: str) -> dict[str, tuple[Run, str, float]]:
    """Name -> (run, weight setting, weight) of all trials."""
    from pgd.methods.base import method_class

    found = {}
    for method in methods:
        key = method_class(method).weight_setting
        of_pair = [run.settings for run in params.runs.values() if (run.method, run.pair) == (method, pair)]
        fixed = of_pair[0] if of_pair else {}
        for factor in FACTORS:
            weight = float(f"{SCALED[method] * factor:.2g}")
            settings = {**fixed, key: weight}
            found[f"{method}_{weight:g}"] = (Run(method, "head+neck", pair, settings), key, weight)
    return found


def tune(params: Params, methods: list[str], pair: str, iterations: int, jobs: int, out: Path) -> None:
    """Run the trials that ``out`` does not hold yet."""
    from benchmark.match import TEACHERS, match
    from benchmark.plan import plan

    home = Path("work/tune").resolve()
    own = params.pairs[pair]
    path = home / DatasetInfo.path(own.dataset)
    data = split_train(DatasetInfo.load(own.dataset), home / "data")
    absolute = {k: str(Path(v).resolve()) for k, v in asdict(data).items() if k.endswith(("images", "annotations"))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**asdict(data), **absolute}, indent=2))
    link = home / TEACHERS / pair
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to((TEACHERS / pair).resolve())
    todo = trials(methods, params, pair)
    todo["inherit"] = (Run("none", "head+neck", pair), "", 0.0)
    short = replace(
        params,
        pairs={pair: replace(own, student=replace(own.student, iterations=iterations))},
        runs={n: t[0] for n, t in todo.items()},
    )
    with contextlib.chdir(home):
        plan(short)
        match(short)
    rows = pd.read_csv(out).to_dict("records") if out.is_file() else []
    done = {(row["pair"], row["trial"], row["iterations"]) for row in rows}
    names = [name for name in todo if (pair, name, iterations) not in done]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_trial, short, name, str(home)): name for name in names}
        for future in as_completed(futures):
            name, record = futures[future], future.result()
            run, key, weight = todo[name]
            row = {
                "pair": pair,
                "trial": name,
                "method": run.method,
                "setting": key,
                "weight": weight,
                "iterations": iterations,
            }
            rows.append({**row, "seed": record["seed"], "AP": record["AP"], "AP50": record["AP50"]})
            out.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).sort_values(["pair", "method", "weight"]).to_csv(out, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=sorted(SCALED))
    parser.add_argument("--pair", default="gfl", help="teacher and student of params.yaml (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/tuning.csv"))
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    tune(load(args.params), args.methods, args.pair, args.iterations, args.jobs, args.out)


if __name__ == "__main__":
    run_cli(main, SettingsError)
