"""Configs and examples that come with the project: where they are, what they need, and copies of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from data_modules.errors import UserError
from data_modules.wording import did_you_mean
from lit_sft.own_packages import HOME

_INSTALLED = HOME / "lit_sft" / "shipped_files"
ROOT = _INSTALLED if _INSTALLED.is_dir() else HOME
"""The folder that holds `configs/` and `examples/`: in an install, inside the package; else the checkout."""

_NAMED = re.compile(r"\b(?:configs|examples)/[\w./-]*[\w-]")


def shipped_configs() -> list[str]:
    """Every config, such as `configs/quickstart.yaml`."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


def is_shipped(path: str | Path) -> bool:
    """Whether a path, seen from the working folder, is that of a config that comes with the project."""
    name = Path(path)
    return not name.is_absolute() and name.parts[:1] == ("configs",) and name.as_posix() in shipped_configs()


def advice_on(path: Path) -> str:
    """How to get a missing config, if it comes with the project; empty otherwise."""
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"it comes with lit_sft: `lit-sft configs {near.as_posix()}` copies it here." if is_shipped(near) else ""


def about(config: str) -> str:
    """What a config is for: the first sentence of its first comment."""
    lines = (ROOT / config).read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines[: _first(lines)])
    return re.split(r"(?<=[.?])\s", comment, maxsplit=1)[0]


def named(name: str) -> str:
    """The config that a user means.

    Args:
        name: Its path with or without `configs/` and `.yaml`: `quickstart`, `configs/quickstart.yaml`.

    Raises:
        UserError: If there is none.
    """
    short = {config.removeprefix("configs/").removesuffix(".yaml"): config for config in shipped_configs()}
    wanted = name.removeprefix("./").removeprefix("configs/").removesuffix(".yaml")
    if wanted not in short:
        advice = did_you_mean(wanted, short) or "`lit-sft configs` lists all."
        raise UserError(f"{name}: no such config comes with lit_sft; {advice}")
    return short[wanted]


def needed_by(configs: Sequence[str]) -> list[str]:
    """The files that configs need, themselves included: other configs, and the bundled data and tokenizer."""
    found: dict[str, None] = {}
    waiting = list(configs)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = None
        if name.endswith(".yaml"):
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
            text = "\n".join(line.partition(" #")[0] for line in lines if not line.startswith("#"))
            waiting += [file for path in _NAMED.findall(text) for file in _files(path)]
    return sorted(found)


def copy_shipped(configs: Sequence[str], folder: Path) -> dict[str, bool]:
    """Copy configs and the files they need to the same paths below a folder.

    Args:
        configs: As `shipped_configs` names them.
        folder: The folder from which the configs will be used, because their paths are relative.

    Returns:
        Every file, and whether it was written; equal files that are already there are not.

    Raises:
        UserError: If a file is already there with other content; nothing is written then.
    """
    files = needed_by(configs)
    for file in files:
        path = folder / file
        if path.exists() and not _is_equal(path, ROOT / file):
            raise UserError(
                f"{path}: exists and differs from the file of lit_sft; move it, or start in another folder."
            )
    written = {file: not (folder / file).exists() for file in files}
    for file in (file for file, is_new in written.items() if is_new):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    return written


def _files(path: str) -> list[str]:
    """A shipped file, or the files of a shipped folder; none if there is no such path."""
    place = ROOT / path
    found = [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file())
    return [each.relative_to(ROOT).as_posix() for each in found]


def _is_equal(path: Path, other: Path) -> bool:
    return path.is_file() and path.read_bytes() == other.read_bytes()


def _first(lines: Sequence[str]) -> int:
    """Number of comment lines at the start."""
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
