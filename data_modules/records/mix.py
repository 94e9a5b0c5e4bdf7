"""The sources of a mixture, as given in `--data.mix`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from data_modules.errors import UserError
from data_modules.records.splits import Sources
from data_modules.wording import did_you_mean, kind_of

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class MixSource:
    """One source of a mixture.

    Attributes:
        name: Its name in reports and metrics.
        files: Its training records: files, folders or hub names.
        weight: Its share of the examples of an epoch, relative to the other weights. All sources have one, or none.
        repeats: How often an epoch has each of its examples. 2.5: every example twice, and half of them, chosen by a
            hash of their records, a third time.
        cap: Maximum number of training records, chosen by a hash of each.
        format: Format of its records. None: detected.
        columns: The column that each field is read from. None: those of `--data.columns`.
        template: How its conversations are rendered. None: `--data.template`.
        mask: Which of its tokens are supervised. None: `--data.mask`.
        cleaning: Cleaning rules, for text runs. None: `--data.cleaning`.
    """

    name: str
    files: list[str]
    weight: float | None = None
    repeats: float = 1.0
    cap: int | None = None
    format: str | None = None
    columns: dict[str, str] | None = None
    template: str | None = None
    mask: str | None = None
    cleaning: list[Any] | None = None

    def sources(self, shared: Sources) -> Sources:
        """Where its records are and how they are read.

        Args:
            shared: The settings of the run, with the training files of all sources.

        Raises:
            UserError: If its format or its columns are not known.
        """
        settings: dict[str, Any] = {"files": {"train": self.files}, "fractions": shared.shares, "cap": self.cap}
        if self.format is not None:
            settings["format"] = self.format
        if self.columns is not None:
            settings["columns"] = self.columns
        try:
            return replace(shared, **settings)
        except UserError as error:
            raise UserError(re.sub(r"--data\.(format|columns)", rf"--data.mix {self.name}: \1", str(error))) from None


_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "files": (str, list),
    "weight": (int, float),
    "repeats": (int, float),
    "cap": (int,),
    "format": (str,),
    "columns": (dict,),
    "template": (str,),
    "mask": (str,),
    "cleaning": (list,),
}
assert list(_TYPES) == [each.name for each in fields(MixSource)]


def read_mix(
    items: Sequence[Mapping[str, Any]] | None, train: object = None, *, shares: str = "examples"
) -> tuple[MixSource, ...]:
    """Read the value of `--data.mix`.

    Args:
        items: The settings of each source. None: no mixture.
        train: The value of `--data.train`, which a mixture replaces.
        shares: What weights are shares of, for error messages.

    Returns:
        The sources, sorted by name, so that their order in the config does not matter.

    Raises:
        UserError: If a setting is unknown, missing, of the wrong type or out of range, or both are given.
    """
    if items is None:
        return ()
    if train:
        raise UserError("--data.train and --data.mix are both given; add the files of --data.train as a source of mix.")
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        found = "empty" if isinstance(items, Sequence) and not items else kind_of(items, "a mapping")
        raise UserError(f"--data.mix is {found}; expected a list of sources, each with 'name' and 'files'.")
    mix = tuple(sorted((_source(item, f"--data.mix[{i}]") for i, item in enumerate(items)), key=lambda each: each.name))
    names = [source.name for source in mix]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data.mix: two sources have the name '{name}'; rename one of them.")
    unweighted = [source.name for source in mix if source.weight is None]
    if unweighted and len(unweighted) < len(mix):
        raise UserError(
            f"--data.mix: no weight for {', '.join(unweighted)}; a weight is a share of the {shares}, so either all "
            "sources have one or none. Add the missing weights, or use 'repeats' instead of weights."
        )
    return mix


def files_of(mix: Sequence[MixSource]) -> list[str]:
    """The training files of all sources."""
    return [file for source in mix for file in source.files]


def _source(item: Any, place: str) -> MixSource:
    if not isinstance(item, Mapping):
        raise UserError(f"{place} is {kind_of(item)}; expected the settings of a source, with 'name' and 'files'.")
    for key, value in item.items():
        if key not in _TYPES:
            hint = did_you_mean(str(key), list(_TYPES))
            raise UserError(
                f"{place}: unknown setting '{key}'; expected some of {', '.join(_TYPES)}{f'; {hint}' if hint else '.'}"
            )
        if value is not None and (not isinstance(value, _TYPES[key]) or isinstance(value, bool)):
            words = {str: "text", list: "a list", int: "a whole number", float: "a number", dict: "a mapping"}
            raise UserError(f"{place}.{key} is {kind_of(value)}; expected {words[_TYPES[key][-1]]}.")
    given = {key: value for key, value in item.items() if value is not None}
    for key in ("name", "files"):
        if not given.get(key):
            raise UserError(f"{place} has no '{key}'; expected at least 'name' and 'files'.")
    files = [given["files"]] if isinstance(given["files"], str) else given["files"]
    source = MixSource(**{**given, "files": files})
    _check(source, f"--data.mix {source.name}")
    return source


def _check(source: MixSource, place: str) -> None:
    if not _NAME.fullmatch(source.name):
        raise UserError(
            f"{place}: expected a name of letters, digits, '_', '-' and '.', as it is part of metric names."
        )
    if not all(isinstance(file, str) for file in source.files):
        raise UserError(f"{place}: files: expected names of files.")
    for name, value in (("weight", source.weight), ("repeats", source.repeats)):
        if value is not None and not (0 < value < math.inf):
            raise UserError(f"{place}: {name} {value}; expected a number above 0. To leave a source out, remove it.")
    if source.cap is not None and source.cap < 1:
        raise UserError(f"{place}: cap {source.cap}; expected at least 1 record. To leave a source out, remove it.")
    if source.weight is not None and source.repeats != 1:
        raise UserError(
            f"{place}: has both a weight and repeats; a weight decides how often the source is "
            "repeated, so remove one of them."
        )
