"""``params.yaml``: what is compared, on what, how often. Unknown keys and impossible values are errors."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import yaml

from pgd.checkpoint import INHERIT_CHOICES

TEACHER = "teacher"
#: Kinds of data sets that `prepare` knows.
KINDS = ("minicoco", "coco", "minicrowd", "crowdhuman")
#: What `root` holds, for the kinds that need one.
ROOTS = {
    "coco": "train2017/, val2017/ and annotations/",
    "crowdhuman": "annotation_train.odgt, annotation_val.odgt and Images/",
}
BROKEN_CHOICES = ("refuse", "skip")


class SettingsError(ValueError):
    """A settings file is wrong; one line with file, key and remedy."""


@dataclass(frozen=True)
class Dataset:
    """Which data. ``root`` is the tree of a ``coco`` or ``crowdhuman`` set; the mini sets bring their own archives."""

    kind: str
    root: str | None = None
    #: of ``crowdhuman``: what to do about broken annotations and missing images, ``refuse`` or ``skip`` them
    broken: str = "refuse"
    #: of ``crowdhuman``: whether the annotations must be the published ones
    verify: bool = True
    #: use the first N training images only (smoke runs)
    train_images: int | None = None
    val_images: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"kind: '{self.kind}' is not one of {', '.join(KINDS)}")
        if self.kind in ROOTS and not self.root:
            raise SettingsError(f"root: give the folder that holds {ROOTS[self.kind]}")
        if self.broken not in BROKEN_CHOICES:
            raise SettingsError(f"broken: '{self.broken}' is not one of {', '.join(BROKEN_CHOICES)}")
        if self.kind != "crowdhuman" and (self.broken != "refuse" or not self.verify):
            key = "verify" if self.broken == "refuse" else "broken"
            raise SettingsError(f"{key}: only sets of kind 'crowdhuman' have this setting, not '{self.kind}'")
        for key in ("train_images", "val_images"):
            if (count := getattr(self, key)) is not None and count < 1:
                raise SettingsError(f"{key}: {count} is not a positive number")


@dataclass(frozen=True)
class Detector:
    """A detector and its schedule."""

    #: mmengine config file
    config: str
    #: length of the training; None: what the config says
    iterations: int | None = None
    #: overrides of existing config keys, dotted (``optim_wrapper.optimizer.lr``)
    options: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 2:
            raise SettingsError(f"iterations: {self.iterations} is too few; give 2 or more")


@dataclass(frozen=True)
class Teacher(Detector):
    seed: int = 0
    #: distilling from a teacher below this AP (percent) is refused
    min_ap: float = 0.0


@dataclass(frozen=True)
class Pair:
    """A teacher and the student that learns from it, on one data set."""

    dataset: str
    teacher: Teacher
    student: Detector


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    method: str = "none"
    inherit: str = "none"
    #: whose student this is; may be left out where there is one pair only
    pair: str | None = None
    #: the method's own settings
    settings: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inherit not in INHERIT_CHOICES:
            raise SettingsError(f"inherit: '{self.inherit}' is not one of {', '.join(INHERIT_CHOICES)}")
        if self.method == "none" and self.settings:
            raise SettingsError("settings: method 'none' has no settings")

    @property
    def needs_teacher(self) -> bool:
        return self.method != "none" or self.inherit != "none"


@dataclass(frozen=True)
class Job:
    """One training: a teacher, or the student of a run with one seed."""

    #: names the entry in work/plan: ``teacher-gfl``, ``pgd``
    name: str
    seed: int
    pair_name: str
    pair: Pair
    #: None for a teacher
    run: Run | None

    @property
    def label(self) -> str:
        """Names its files: ``teacher-gfl``, ``pgd-0``."""
        return self.name if self.run is None else f"{self.name}-{self.seed}"

    @property
    def detector(self) -> Detector:
        return self.pair.teacher if self.run is None else self.pair.student

    @property
    def options(self) -> dict:
        """The run's own overrides of the config."""
        return {} if self.run is None else self.run.options


@dataclass(frozen=True)
class Params:
    """The whole file."""

    datasets: dict[str, Dataset]
    pairs: dict[str, Pair]
    runs: dict[str, Run]
    seeds: tuple[int, ...] = (0,)

    def teacher(self, pair: str) -> Job:
        """The training of a pair's teacher."""
        if pair not in self.pairs:
            raise SettingsError(f"no pair '{pair}'; pairs: {', '.join(self.pairs)}")
        return Job(f"{TEACHER}-{pair}", self.pairs[pair].teacher.seed, pair, self.pairs[pair], None)

    def student(self, run: str, seed: int | None = None) -> Job:
        """The training of a run; by default with the first seed."""
        if run not in self.runs:
            raise SettingsError(f"no run '{run}'; runs: {', '.join(self.runs)}")
        pair = self.runs[run].pair
        return Job(run, self.seeds[0] if seed is None else seed, pair, self.pairs[pair], self.runs[run])


def _unknown_key(cls: type, key: str, where: str) -> SettingsError:
    known = [f.name for f in fields(cls)]
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return SettingsError(f"{where}{key}: unknown key; {hint}")


def _check_type(value: Any, hint: Any, where: str) -> None:
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    allowed = tuple(float if a is float else a for a in allowed)
    fits = isinstance(value, allowed) or (float in allowed and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("nothing" if a is type(None) else a.__name__ for a in allowed)
        raise SettingsError(f"{where}: {value!r} is {type(value).__name__}, expected {names}")


def _build(cls: type, content: Any, where: str) -> Any:
    """An instance of dataclass ``cls`` from a mapping, strictly; ``where`` prefixes keys in errors."""
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(f"{where.rstrip('.')}: expected a mapping, found {type(content).__name__}")
    hints = get_type_hints(cls)
    for key, value in content.items():
        if key not in hints:
            raise _unknown_key(cls, key, where)
        _check_type(value, hints[key], f"{where}{key}")
    missing = [f.name for f in fields(cls) if f.name not in content and _required(f)]
    if missing:
        raise SettingsError(f"{where}{missing[0]}: missing")
    try:
        return cls(**content)
    except SettingsError as error:
        message = str(error)
        raise SettingsError(message if message.startswith(where) else f"{where}{message}") from None


def _required(f) -> bool:
    from dataclasses import MISSING

    return f.default is MISSING and f.default_factory is MISSING


def _mapping(content: dict, key: str) -> dict:
    """A non-empty mapping at the top of the file, whose keys may be file names."""
    if not content.get(key):
        raise SettingsError(f"{key}: missing")
    if not isinstance(content[key], dict):
        raise SettingsError(f"{key}: expected a mapping from names to settings")
    for name in content[key]:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise SettingsError(f"{key}.{name}: a name is text of letters, digits, '_', '.' and '-'")
    return content[key]


def _pair(content: Any, datasets: dict[str, Dataset], where: str) -> Pair:
    """A pair; its data set may be left out where there is one only."""
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: expected a mapping, found {type(content).__name__}")
    for key in content:
        if key not in {f.name for f in fields(Pair)}:
            raise _unknown_key(Pair, key, f"{where}.")
    for key in ("teacher", "student"):
        if not content.get(key):
            raise SettingsError(f"{where}.{key}: missing")
    return Pair(
        dataset=_one_of(content.get("dataset"), datasets, f"{where}.dataset"),
        teacher=_build(Teacher, content["teacher"], f"{where}.teacher."),
        student=_build(Detector, content["student"], f"{where}.student."),
    )


def _one_of(name: Any, known: dict, where: str) -> str:
    """A reference by name; the only name there is when it was left out."""
    if name is None and len(known) == 1:
        return next(iter(known))
    if name not in known:
        problem = "missing" if name is None else f"'{name}' is unknown"
        raise SettingsError(f"{where}: {problem}; there are: {', '.join(known)}")
    return name


def parse(content: Any) -> Params:
    """Params from the parsed YAML; raises :class:`SettingsError`."""
    if not isinstance(content, dict):
        raise SettingsError("expected a mapping at the top")
    for key in content:
        if key not in {f.name for f in fields(Params)}:
            raise _unknown_key(Params, key, "")
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise SettingsError(f"seeds: {seeds!r} is not a list of whole numbers")
    if len(set(seeds)) != len(seeds):
        raise SettingsError(f"seeds: {seeds!r} names a seed twice")
    datasets = {}
    for name, settings in _mapping(content, "datasets").items():
        # `minicoco:` alone is enough
        named = {"kind": name, **settings} if isinstance(settings, dict) else settings or {"kind": name}
        datasets[name] = _build(Dataset, named, f"datasets.{name}.")
    pairs = {name: _pair(pair, datasets, f"pairs.{name}") for name, pair in _mapping(content, "pairs").items()}
    runs = {}
    for name, settings in _mapping(content, "runs").items():
        if name.startswith(TEACHER):
            raise SettingsError(f"runs.{name}: names that start with '{TEACHER}' are the teachers' own")
        run = _build(Run, settings, f"runs.{name}.")
        runs[name] = replace(run, pair=_one_of(run.pair, pairs, f"runs.{name}.pair"))
    return Params(datasets, pairs, runs, tuple(seeds))


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key stands once: plain PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise SettingsError(f"line {key_node.start_mark.line + 1}: the key '{key}' stands twice; delete one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a settings file; every error is one line that starts with the file's name."""
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; run this from the folder that holds it")
    try:
        return parse(yaml.load(path.read_text(), _UniqueKeys))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{place}: not valid YAML ({getattr(error, 'problem', error)})") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
