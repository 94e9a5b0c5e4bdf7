"""A study: a question, the arms that answer it, and their trials."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from data_modules.wording import nearest_path
from lit_sft.files import is_plain_name, read_yaml, slug
from lit_sft.metrics.segments import SEGMENTS
from lit_sft.settings.dataclass_values import dataclass_from
from lit_sft.settings.trust import nested, refuse_trust
from lit_sft.shipped import advice_on

Settings = dict[str, Any]
"""Dotted names as `fit` takes them, and their values."""

PRIMARY = (*SEGMENTS, *MASKS, "bits_per_byte", "exact_match", "rougeL_mixed", "preference_accuracy")
"""Metrics that can answer a study's question."""

Equal = Literal["steps", "supervised_tokens", "flops"]

_CONTROLLED = {
    "seed_everything": "use `seeds` instead",
    "data.seed": "use `seeds` instead",
    "trainer.max_steps": "use `budget` instead",
    "trainer.max_epochs": "use `budget` instead; to compare lengths, look at the learning curves of one longer study",
    "trainer.val_check_interval": "use `validations` instead",
    "trainer.check_val_every_n_epoch": "use `validations` instead",
    "run.root": "the study gives every trial its own folder",
    "run.name": "the study gives every trial its own folder",
    "run.allow_changes": "trials cannot change settings once started",
    "run.allow_code": "trials may run any code that the study names",
}
"""Settings that a study controls, and what to use instead."""


@dataclass(frozen=True)
class Budget:
    """What is equal in all trials.

    Attributes:
        equal: `steps`: optimiser steps. `supervised_tokens`: tokens in the loss. `flops`: floating-point
            operations, by the count in `lit_sft.models.flops`.
        amount: How many. None: as many as the baseline's own settings give.
    """

    equal: Equal = "steps"
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.equal not in get_args(Equal):
            raise UserError(f"equal {self.equal!r}: expected one of {', '.join(get_args(Equal))}.")
        if self.amount is not None and not 0 < self.amount < math.inf:
            raise UserError(f"amount {self.amount:g}: expected more than 0, or null for the baseline's own.")


@dataclass(frozen=True)
class Arm:
    """One of the variants compared: its name and its settings."""

    name: str
    settings: Settings

    @property
    def slug(self) -> str:
        """Folder name."""
        return slug(self.name, "arm")


@dataclass(frozen=True)
class Trial:
    """One run of one arm with one seed."""

    arm: Arm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Arm and seed."""
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A question and the arms that answer it.

    Attributes:
        name: Folder name.
        base: Config files of `fit` that all trials start from.
        question: In plain words; the title of the report.
        axes: Values to try by dotted setting; all combinations are arms.
        arms: Named sets of settings that change together; combined with the axes.
        baseline: The arm that the others are compared with. None: the first.
        seeds: Every arm has one trial per seed.
        budget: What is equal in all trials.
        settings: Settings of all trials, on top of the base config.
        primary: The metric that answers the question: a segment or mask (nats per token, lower is better),
            `bits_per_byte` in text runs; or, higher is better, `exact_match`, `rougeL_mixed` or, with preference
            pairs to test with, `preference_accuracy`.
        answers: Maximum number of test rows with generated answers.
        validations: Number of points on the learning curves.
        checkpoint: The one that is tested: `last`, at the end of the budget, or `best`, by validation loss under the
            trial's own mask.
    """

    name: str
    base: list[str]
    question: str = ""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    arms: dict[str, Settings] = field(default_factory=dict)
    baseline: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    budget: Budget = Budget()
    settings: Settings = field(default_factory=dict)
    primary: str = "answer"
    answers: int = 200
    validations: int = 10
    checkpoint: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        if not is_plain_name(self.name):
            raise UserError(f"name {self.name!r}: expected a plain name; it becomes a folder.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}: expected a list of distinct numbers, such as [0, 1, 2].")
        if self.checkpoint not in ("last", "best"):
            raise UserError(f"checkpoint {self.checkpoint!r}: expected last or best.")
        if self.answers < 0:
            raise UserError(f"answers {self.answers}: expected 0 or more.")
        if self.validations < 1:
            raise UserError(f"validations {self.validations}: expected at least 1.")
        if self.primary not in PRIMARY:
            raise UserError(f"primary {self.primary!r}: expected one of {', '.join(PRIMARY)}.")
        self.check_settings()
        names = [arm.name for arm in self.all_arms()]
        if len(names) < 2:
            raise UserError("a study compares at least two arms: give `axes` or `arms`.")
        if len({arm.slug for arm in self.all_arms()}) < len(names):
            raise UserError(f"arms {', '.join(names)}: two are equal or differ only in punctuation; rename one.")
        if self.baseline is not None and self.baseline not in names:
            raise UserError(f"baseline {self.baseline!r}: no such arm; the arms are {', '.join(names)}.")

    def check_settings(self) -> None:
        """Refuse settings that the study controls.

        Raises:
            UserError: If a study sets one of them.
        """
        for name in itertools.chain(self.settings, self.axes, *self.arms.values()):
            if name in _CONTROLLED:
                raise UserError(f"{name}: cannot be set in a study; {_CONTROLLED[name]}.")

    def all_arms(self) -> list[Arm]:
        """Every arm, the baseline first."""
        named: list[tuple[str, Settings]] = list(self.arms.items()) or [("", {})]
        points = [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]
        arms = [
            Arm(", ".join(filter(None, [name, _name_of(point)])), {**settings, **point})
            for name, settings in named
            for point in points
        ]
        return sorted(arms, key=lambda arm: arm.name != (self.baseline or arms[0].name))

    def trials(self, root: Path) -> list[Trial]:
        """Every trial, seed by seed, so that a stopped study has complete seeds."""
        return [
            Trial(arm, seed, root / self.name / "trials" / f"{arm.slug}-seed{seed}")
            for seed in self.seeds
            for arm in self.all_arms()
        ]


def read_study(path: str | Path) -> Study:
    """Read a study from a YAML file.

    Raises:
        UserError: If the file, a name or a value is wrong; names the file.
    """
    values = read_yaml(path, advice="Studies are in configs/ablation/.", usual=Path("configs/ablation"))
    try:
        return _study(values, Path(path).stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_base(study: Study, path: str) -> None:
    """Refuse a study whose base config is missing.

    Args:
        study: The study.
        path: Its file, for messages.

    Raises:
        UserError: If a base config file does not exist.
    """
    for file in study.base:
        if not Path(file).exists():
            advice = (
                advice_on(Path(file)) or nearest_path(Path(file)) or f"relative paths are resolved from {Path.cwd()}."
            )
            raise UserError(f"{path}: base {file}: no such file; {advice}")


def _study(values: Any, name: str) -> Study:
    if not isinstance(values, dict):
        raise UserError("expected names and values, such as `base: configs/quickstart.yaml`.")
    values = {key: value for key, value in values.items() if value is not None}
    if "base" not in values and set(values) <= {each.name for each in fields(Study)}:
        raise UserError("no `base`; expected the config file of `fit` that all trials start from.")
    axes, settings = _named(values, "axes"), _named(values, "settings")
    arms = {arm: {} if own is None else own for arm, own in _named(values, "arms").items()}
    if wrong := [each for each, points in axes.items() if not isinstance(points, list)]:
        raise UserError(f"axes.{wrong[0]}: expected a list of values.")
    if wrong := [each for each, own in arms.items() if not isinstance(own, dict)]:
        raise UserError(f"arms.{wrong[0]}: expected a set of settings.")
    for given in (settings, axes, *arms.values()):
        refuse_trust(nested(given), name)
    budget = dataclass_from(Budget, values.get("budget", {}), place="budget")
    converted = {"axes": axes, "arms": arms, "settings": settings, "budget": budget}
    plain = {key: value for key, value in values.items() if key not in converted}
    plain |= {key: str(plain[key]) for key in ("name", "baseline") if key in plain}  # YAML reads 2024 as a number
    if isinstance(plain.get("base"), str):
        plain["base"] = [plain["base"]]
    return dataclass_from(Study, {"name": name, **plain}, converted=converted)


def _named(values: dict[Any, Any], key: str) -> dict[str, Any]:
    named = values.get(key, {})
    if not isinstance(named, dict):
        raise UserError(f"{key}: expected names and values, got {named!r}.")
    return {str(name): value for name, value in named.items()}


def _name_of(point: Settings) -> str:
    return ", ".join(f"{key.rpartition('.')[2]}={_shown(value)}" for key, value in point.items())


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # six digits may not tell two arms apart
    return str(value)
