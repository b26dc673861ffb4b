"""``params.yaml``: what is compared, on what, how often. Unknown keys and impossible values are errors."""

from __future__ import annotations

import dataclasses
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Le, MinLen
from pydantic import (
    AfterValidator,
    Strict,
    StrictInt,
    StrictStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from benchmark.experiment.datasets import STRICT, Dataset, Number
from benchmark.experiment.names import hint, unknown
from pgd import INHERIT_CHOICES

TEACHER = "teacher"


class SettingsError(ValueError):
    """A settings file is wrong; one line with file, key and remedy."""


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{list(seeds)} names a seed twice")
    return seeds


# Nothing is converted but whole numbers to floats, and lists to tuples.
Settings = Annotated[dict[Annotated[str, Strict()], Any], Strict()]
#: numpy takes no larger one
Seed = Annotated[StrictInt, Ge(0), Le(2**32 - 1)]
#: may be part of a file's name
Name = Annotated[StrictStr, StringConstraints(pattern=r"^[\w.-]+$")]


@dataclass(frozen=True, config=STRICT)
class Detector:
    """A detector and its schedule."""

    #: mmengine config file, from the repository on, or one that mmdet ships (``mmdet::gfl/gfl_r50_fpn_1x_coco.py``)
    config: StrictStr
    #: length of the training; None: what the config says
    iterations: Annotated[StrictInt, Ge(2)] | None = None
    #: overrides of existing config keys, dotted (``optim_wrapper.optimizer.lr``)
    options: Settings = field(default_factory=dict)
    #: processes that train it together, a GPU each, each with the batch of the config
    gpus: Annotated[StrictInt, Ge(1)] = 1
    #: what starts them: torchrun, or srun within a job of Slurm
    launcher: Literal["pytorch", "slurm"] = "pytorch"


@dataclass(frozen=True, config=STRICT)
class Teacher(Detector):
    """A detector that others learn from."""

    seed: Seed = 0
    #: distilling from a teacher below this AP (percent) is refused
    min_ap: Annotated[Number, Ge(0), Le(100)] = 0.0
    #: what it sees in the training images: stored in single precision where that can be done, which changes nothing but
    #: the time (``auto``), looked at anew in every step (``live``), or stored in half precision (``float16``)
    features: Literal["auto", "live", "float16"] = "auto"
    #: weights that exist already, a path (from the folder of params.yaml) or an address: nothing is trained then
    checkpoint: StrictStr | None = None
    #: of that file
    sha256: Annotated[StrictStr, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    def __post_init__(self) -> None:
        if self.sha256 and not self.checkpoint:
            raise ValueError("sha256: of which file? name it under checkpoint")
        if self.checkpoint and self.iterations is not None:
            raise ValueError("iterations: a teacher with a checkpoint is not trained; delete one of the two")

    @property
    def is_address(self) -> bool:
        """Whether the checkpoint has to be downloaded."""
        return "://" in (self.checkpoint or "")


@dataclass(frozen=True, config=STRICT)
class Pair:
    """A teacher and the student that learns from it, on one data set."""

    teacher: Teacher
    student: Detector
    #: what both are trained on; DVC reads it, too, so that it cannot be left out
    dataset: StrictStr | None = None


@dataclass(frozen=True, config=STRICT)
class Run:
    """One row of the table."""

    method: StrictStr = "none"
    inherit: Literal[INHERIT_CHOICES] = "none"
    #: whose student this is; DVC reads it, too, so that it cannot be left out
    pair: StrictStr | None = None
    #: the method's own settings
    settings: Settings = field(default_factory=dict)
    options: Settings = field(default_factory=dict)
    #: length of its training; None: what the pair's student has
    iterations: Annotated[StrictInt, Ge(2)] | None = None
    #: what its name does not say, for the report
    note: StrictStr = ""

    def __post_init__(self) -> None:
        if self.method == "none" and self.settings:
            raise ValueError("settings: method 'none' has no settings")

    @property
    def needs_teacher(self) -> bool:
        return self.method != "none" or self.inherit != "none"


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a teacher, or the student of a run with one seed."""

    #: names its plan: ``teacher-gfl``, ``pgd``
    name: str
    seed: int
    pair_name: str
    pair: Pair
    #: None for a teacher
    run: Run | None

    @property
    def of_teacher(self) -> Job:
        """The training of the teacher that this one learns from."""
        return teacher_job(self.pair_name, self.pair)

    @property
    def label(self) -> str:
        """Names its files: ``teacher-gfl``, ``pgd-0``."""
        return self.name if self.run is None else f"{self.name}-{self.seed}"

    @property
    def detector(self) -> Detector:
        if self.run is None:
            return self.pair.teacher
        student, own = self.pair.student, self.run.iterations
        return student if own is None else replace(student, iterations=own)

    @property
    def options(self) -> dict:
        """The run's own overrides of the config."""
        return {} if self.run is None else self.run.options


def teacher_job(name: str, pair: Pair) -> Job:
    """The training of the teacher of a pair of this name."""
    return Job(f"{TEACHER}-{name}", pair.teacher.seed, name, pair, None)


@dataclass(frozen=True, config=STRICT)
class Params:
    """The whole file."""

    datasets: Annotated[dict[Name, Dataset], MinLen(1)]
    pairs: Annotated[dict[Name, Pair], MinLen(1)]
    runs: Annotated[dict[Name, Run], MinLen(1)]
    seeds: Annotated[tuple[Seed, ...], MinLen(1), AfterValidator(_distinct)] = (0,)
    #: where the course of trainings can be watched besides
    watch: tuple[Literal["tensorboard", "dvclive"], ...] = ()

    def dataset(self, name: str) -> Dataset:
        """The settings of a data set."""
        if name not in self.datasets:
            raise SettingsError(unknown("data set", name, self.datasets))
        return self.datasets[name]

    def teacher(self, pair: str) -> Job:
        """The training of a pair's teacher."""
        if pair not in self.pairs:
            raise SettingsError(unknown("pair", pair, self.pairs))
        return teacher_job(pair, self.pairs[pair])

    def student(self, run: str, seed: int | None = None) -> Job:
        """The training of a run; by default with the first seed."""
        if run not in self.runs:
            raise SettingsError(unknown("run", run, self.runs))
        pair = self.runs[run].pair
        return Job(run, self.seeds[0] if seed is None else seed, pair, self.pairs[pair], self.runs[run])

    @property
    def jobs(self) -> list[Job]:
        """Every training that is asked for: the teachers, then the students, run by run."""
        students = [self.student(run, seed) for run in self.runs for seed in self.seeds]
        return [*map(self.teacher, self.pairs), *students]


_CHECK = TypeAdapter(Params)
#: what pydantic says in Python's words
WORDS = {
    **dict.fromkeys(("dict_type", "dataclass_type"), "should be a mapping"),
    "tuple_type": "should be a list",
    "too_short": "should not be empty",
}


def _known_keys(place: tuple) -> list[str]:
    """The keys that a mapping at this place of the file may have."""
    kind: Any = Params
    for part in place:
        kind = get_args(kind)[1] if get_origin(kind) is dict else get_type_hints(kind)[part]
    return [f.name for f in dataclasses.fields(kind)]


def _sentence(error: dict) -> str:
    """What pydantic found, as one line."""
    place, value, kind = error["loc"], error["input"], error["type"]
    where = ".".join(map(str, place))
    if kind == "unexpected_keyword_argument":
        return f"{where}: unknown key; {hint(place[-1], _known_keys(place[:-1]), 'known keys')}"
    if kind == "invalid_key":
        known = _known_keys(place[:-1])
        return f"{'.'.join(map(str, (*place[:-1], value)))}: unknown key; known keys: {', '.join(known)}"
    if place[-1:] == ("[key]",):
        return f"{where.removesuffix('.[key]')}: a name is text of letters, digits, '_', '.' and '-'"
    if kind == "missing" or value is None or value == {}:
        return f"{where}: missing"
    if kind == "value_error":
        # our own checks say which key they are about
        text = str(error["ctx"]["error"])
        return f"{where}.{text}" if ": " in text else f"{where}: {text}"
    return f"{where}: {value!r} {WORDS.get(kind) or error['msg'].removeprefix('Input ')}"


def _refers(name: str | None, known: dict, where: str) -> None:
    """Raise :class:`SettingsError` where a reference by name leads nowhere."""
    if name not in known:
        problem = "missing" if name is None else f"'{name}' is unknown"
        raise SettingsError(f"{where}: {problem}; {hint(name or '', known)}")


def _with_defaults(content: dict) -> dict:
    """``name:`` alone is enough for a data set whose name is its kind."""

    def filled(key: str, fill) -> dict:
        entries = content.get(key)
        if not isinstance(entries, dict):
            return {}
        known = {name: {} if own is None else own for name, own in entries.items()}
        return {key: {name: fill(name) | own if isinstance(own, dict) else own for name, own in known.items()}}

    return content | filled("datasets", lambda name: {"kind": name}) | filled("runs", lambda name: {})


def parse(content: Any) -> Params:
    """Params from the parsed YAML; raises :class:`SettingsError`."""
    if not isinstance(content, dict):
        raise SettingsError("expected a mapping at the top")
    try:
        params = _CHECK.validate_python(_with_defaults(content))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # a misspelt key explains one that is missing
        unknown = [one for one in found if one["type"] in ("unexpected_keyword_argument", "invalid_key")]
        raise SettingsError(_sentence((unknown or found)[0])) from None
    if own := [name for name in params.runs if name.startswith(TEACHER)]:
        raise SettingsError(f"runs.{own[0]}: names that start with '{TEACHER}' are the teachers' own")
    for name, pair in params.pairs.items():
        _refers(pair.dataset, params.datasets, f"pairs.{name}.dataset")
    for name, run in params.runs.items():
        _refers(run.pair, params.pairs, f"runs.{name}.pair")
    return params


def _placed(pair: Pair, folder: Path) -> Pair:
    """The same with the path of a given teacher from anywhere."""
    teacher = pair.teacher
    if teacher.checkpoint is None or teacher.is_address:
        return pair
    path = (folder / Path(teacher.checkpoint).expanduser()).resolve()
    return replace(pair, teacher=replace(teacher, checkpoint=str(path)))


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key stands once: plain PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise SettingsError(f"line {key_node.start_mark.line + 1}: a key is a name, not a list or a mapping")
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
        params = parse(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys))
        return replace(params, pairs={name: _placed(pair, path.parent) for name, pair in params.pairs.items()})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place, what = f" line {mark.line + 1}" if mark else "", str(getattr(error, "problem", error))
        raise SettingsError(f"{path}{place}: not valid YAML ({what.splitlines()[0]})") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
