"""Loggers by short name, and `--trainer.logger CSVLogger`, which means the same as `--run.loggers [csv]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast, get_args

from data_modules.errors import UserError
from lit_sft.yaml_loader import load_yaml

LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]

DEFAULT: tuple[LoggerName, ...] = ("tensorboard",)

CLASSES: dict[str, LoggerName] = {
    "TensorBoardLogger": "tensorboard",
    "CSVLogger": "csv",
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
}
"""Lightning's classes of these loggers."""

_MODULE = "lightning.pytorch.loggers"

_PACKAGES: dict[str, tuple[str, ...]] = {"wandb": ("wandb",), "mlflow": ("mlflow", "mlflow-skinny")}
"""Packages that loggers need, any of which will do; the first is proposed."""


def check_loggers(names: Sequence[LoggerName], logger: Any) -> None:
    """Refuse loggers that cannot be used, before anything is written.

    Args:
        names: `--run.loggers`.
        logger: `--trainer.logger`.

    Raises:
        UserError: If one is named twice, its package is not installed, or `--trainer.logger` would replace them.
    """
    if len(set(names)) < len(names):
        raise UserError(f"--run.loggers [{', '.join(names)}]: each at most once.")
    if logger not in (None, True):
        if tuple(names) != DEFAULT:
            what = "turns off all loggers" if logger is False else "names the loggers of the run itself"
            raise UserError(
                f"--run.loggers [{', '.join(names)}] and --trainer.logger are both set, and the latter {what}. Set "
                "one of the two; `--trainer.logger true` leaves the choice to --run.loggers."
            )
        return
    for name in names:
        packages = _PACKAGES.get(name, ())
        if packages and not any(map(_is_installed, packages)):
            raise UserError(
                f"the logger {name} needs the package {packages[0]}, which is not installed; `pip install "
                f"{packages[0]}`."
            )


def named_loggers(value: Any) -> list[LoggerName] | None:
    """The loggers that a value of `trainer.logger` names without any settings of theirs.

    Args:
        value: A name or several, such as `CSVLogger` or `lightning.pytorch.loggers.CSVLogger`, or anything else.

    Returns:
        Their short names; None if the value is anything else, which is left to Lightning.
    """
    parts = value if isinstance(value, list) else [value]
    names = [_name_of(part) for part in parts]
    return cast(list[LoggerName], names) if names and None not in names else None


def in_short_form(arguments: Sequence[str]) -> list[str]:
    """The arguments, with loggers that `--trainer.logger` names in `--run.loggers` instead, and a single one as a list.

    Args:
        arguments: Command-line arguments. With any `--trainer.logger.SETTING`, that option is left to Lightning.

    Raises:
        UserError: If both options name loggers.
    """
    given, rest = _with_lists(arguments), list[str]()
    if any(argument.startswith("--trainer.logger.") for argument in given):
        return given
    while given:
        argument = given.pop(0)
        option, is_joined, value = argument.partition("=")
        if option == "--trainer.logger" and (is_joined or given):
            value = value if is_joined else given.pop(0)
            names = named_loggers(_loaded(value))
            if names is not None and any(each.partition("=")[0] == "--run.loggers" for each in arguments):
                raise UserError(f"--trainer.logger {value} and --run.loggers both name loggers; set one of the two.")
            rest += [f"{option}={value}"] if names is None else [f"{option}=true", f"--run.loggers=[{','.join(names)}]"]
        else:
            rest.append(argument)
    return rest


def with_named_loggers(sections: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The settings of a config, with loggers that `trainer.logger` names in `run.loggers` instead.

    Args:
        sections: The settings.
        place: The config's path.

    Raises:
        UserError: If the config sets `run.loggers` too.
    """
    trainer, run = sections.get("trainer"), sections.get("run") or {}
    if isinstance(run.get("loggers"), str):
        run = {**run, "loggers": [run["loggers"]]}
        sections = {**sections, "run": run}
    names = named_loggers(trainer.get("logger")) if isinstance(trainer, Mapping) else None
    if not isinstance(trainer, Mapping) or names is None:
        return dict(sections)
    if "loggers" in run:
        raise UserError(f"{place}: trainer.logger and run.loggers both name loggers; set one of the two.")
    return {**sections, "trainer": {**trainer, "logger": True}, "run": {**run, "loggers": names}}


def _with_lists(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--run.loggers csv` as `--run.loggers [csv]`."""
    pairs = zip(["", *arguments], arguments, strict=False)
    joined = {f"--run.loggers={name}": f"--run.loggers=[{name}]" for name in get_args(LoggerName)}
    return [
        f"[{argument}]"
        if before == "--run.loggers" and argument in get_args(LoggerName)
        else joined.get(argument, argument)
        for before, argument in pairs
    ]


def _name_of(part: Any) -> LoggerName | None:
    if isinstance(part, Mapping) and set(part) == {"class_path"}:
        part = part["class_path"]
    if not isinstance(part, str):
        return None
    module, _, name = part.rpartition(".")
    if module not in ("", _MODULE):
        return None
    return cast(LoggerName, name) if name in get_args(LoggerName) and not module else CLASSES.get(name)


def _loaded(text: str) -> Any:
    try:
        return load_yaml(text, "")[0]
    except ValueError:
        return None


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
