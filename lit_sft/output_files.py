"""Outputs that a user names: they never replace what the command reads, nor any file but an earlier report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_modules.errors import UserError

_BEGINNING = 4096
"""Bytes of an existing file that are read to recognise a report."""

_PAGE = re.compile(rb"\s*<!doctype html", re.IGNORECASE)
# the first names of our reports: of clean, tokenizer compare, lint, and SARIF
_JSON = re.compile(rb'\{\s*\n\s+"(?:files|data|subject|\$schema)"')


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str] = ()) -> None:
    """Check, before any work is done, that nothing is lost when outputs are written.

    Args:
        outputs: Files or folders to write, by option. None: not asked for. What `--html`, `--json` and `--sarif` name
            may exist if it is an earlier report; whether other outputs may exist, their commands decide.
        inputs: Files and folders that are read; other names, such as those of the hub, are ignored.

    Raises:
        UserError: If an output is also read or lies in a folder that is read, if an input lies in an output folder, if
            two outputs are the same file, or if one would replace something other than a report.
    """
    read = {given: Path(given).resolve() for given in inputs if Path(given).exists()}
    written: dict[Path, str] = {}
    for option, given in outputs.items():
        if given is None:
            continue
        if not given or "\0" in given:
            raise UserError(f"{option} {given!r}: not a name of a file or folder; choose another.")
        path = Path(given).resolve()
        _check_apart(option, given, path, read)
        if path in written:
            raise UserError(f"{option} {given}: the same file as {written[path]}; choose another.")
        written[path] = option
        _check_replaced(option, given, path)


def _check_apart(option: str, given: str, path: Path, read: Mapping[str, Path]) -> None:
    for name, source in read.items():
        if path == source:
            raise UserError(f"{option} {given}: is read by this command, and would be replaced; choose another name.")
        if source.is_dir() and path.is_relative_to(source):
            raise UserError(f"{option} {given}: lies in {name}, which is read as a whole; choose another folder.")
        if source.is_relative_to(path):
            raise UserError(f"{option} {given}: holds {name}, which is read; choose another folder.")


def _check_replaced(option: str, given: str, path: Path) -> None:
    kinds = {"--html": ("page", _PAGE), "--json": ("report", _JSON), "--sarif": ("report", _JSON)}
    if option not in kinds or not path.is_file():
        return
    kind, pattern = kinds[option]
    with path.open("rb") as stream:
        beginning = stream.read(_BEGINNING)
    if beginning and not pattern.match(beginning):
        raise UserError(f"{option} {given}: exists and is not a {kind}; expected a new file, or an earlier {kind}.")
