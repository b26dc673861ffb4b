"""The record of one run: ``results/runs/<run>-<seed>.json``, written by `evaluate`, read by all tables and figures."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from benchmark.training.result import Training

#: of the file's form; a record of another one is refused
VERSION = 2
TEACHER = "teacher"
#: begins the columns of AP by class in a table of records
CLASS = "class."
#: Accuracy by kind of metric, in percent; lower is better for MR alone.
METRICS = {
    "coco": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"),
    "crowdhuman": ("AP", "MR", "JI"),
}
#: Accuracy that every record has; others may be None (no object of that size).
NEEDED = {"coco": ("AP",), "crowdhuman": METRICS["crowdhuman"]}


class ReportError(RuntimeError):
    """Something the report needs is missing or unusable; the message is one line that names it."""


@dataclass(frozen=True, kw_only=True)
class Record(Training):
    """One evaluated training."""

    version: int = VERSION
    #: name in params.yaml; ``teacher-<pair>`` for a teacher
    run: str
    seed: int
    pair: str
    #: ``teacher`` or ``student``
    role: str
    #: registered name, or ``none``
    method: str
    #: what the student takes over before training
    inherit: str
    dataset: str
    #: kind of metric: of :data:`METRICS`
    metric: str
    #: how much of the data set was broken and left out, by split and by what was wrong with it
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    #: mmdet's type of the detector, in lower case
    detector: str
    backbone: str
    #: config file of the detector
    config: str
    #: the run's own overrides of it
    options: dict[str, Any]
    #: percent, by the names of :data:`METRICS`
    accuracy: dict[str, float | None]
    #: AP in percent by class, None for a class without an object; of COCO's metric alone, and not in older records
    class_ap: dict[str, float | None] = field(default_factory=dict)
    eval_seconds: float
    #: day of the commit that it was trained with (``2026-01-31``); None where git does not know it, or in older records
    code_date: str | None = None
    #: of the weights that were evaluated
    checkpoint_sha256: str

    @property
    def key(self) -> str:
        """Names it in files and metrics: ``pgd-0``, ``teacher-gfl``."""
        return self.run if self.role == TEACHER else f"{self.run}-{self.seed}"

    @classmethod
    def read(cls, path: Path) -> Record:
        """One record, checked.

        Raises:
            ReportError: it is missing or broken, of another version, lacks an entry, has one that there is not, has no
                AP (MR, JI), or stands in the file of another record.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ReportError(f"{path} is no record of version {VERSION}: `dvc repro` writes it anew")
        names = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
        if absent := [name for name, required in names.items() if required and name not in content]:
            raise ReportError(f"{path} has no '{absent[0]}'")
        if foreign := [name for name in content if name not in names]:
            raise ReportError(f"{path} has an entry '{foreign[0]}', which records do not have")
        record = cls(**content)
        if record.metric not in METRICS:
            raise ReportError(f"{path} has the metric '{record.metric}', not one of {', '.join(METRICS)}")
        if absent := [name for name in METRICS[record.metric] if name not in record.accuracy]:
            raise ReportError(f"{path} has no '{absent[0]}'")
        if record.key != path.stem:
            raise ReportError(f"{path} holds another record, {record.key}")
        for name in NEEDED[record.metric]:
            if (value := record.accuracy[name]) is None or not math.isfinite(value):
                raise ReportError(f"{path} has no {name}: it is {value}")
        return record

    def row(self) -> dict[str, Any]:
        """Flat, for a table: its ``key``, accuracy by its names, ``class.<name>``, ``method.<setting>``,
        ``environment.<entry>``, and options as text."""
        row = asdict(self)
        for name in ("version", "accuracy", "class_ap", "settings", "environment", "options", "left_out"):
            del row[name]
        return {
            "key": self.key,
            **row,
            "options": ", ".join(f"{key}: {value}" for key, value in sorted(self.options.items())),
            **self.accuracy,
            **{f"{CLASS}{name}": value for name, value in self.class_ap.items()},
            **{f"method.{key}": value for key, value in self.settings.items()},
            **{f"environment.{key}": value for key, value in self.environment.items()},
        }


def read_yaml(path: Path, kind: Any) -> Any:
    """The content of a YAML file, checked to be of a kind; :class:`ReportError` naming the entry that is wrong."""
    try:
        return TypeAdapter(kind).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except yaml.YAMLError as error:
        raise ReportError(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ReportError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; :class:`ReportError` naming it when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from None
