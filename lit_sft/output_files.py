"""Outputs that a user names: they never replace what the command reads, nor any file but an earlier report."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_modules.errors import UserError

_BEGINNING = 4096
"""Bytes of an existing file that are read to recognise a report."""

_PAGE = re.compile(rb"\s*<!doctype html", re.IGNORECASE)
# the first names of our reports: of clean, tokenizer compare, lint, and SARIF
_JSON = re.compile(rb'\{\s*\n\s+"(?:files|data|subject|\$schema)"')
_PAIRS = re.compile(rb'\{"prompt": \[')
_LABELS = re.compile(rb'\{"label": (?:true|false), "prompt": \[')

_FILES = {
    "--html": ("page", _PAGE),
    "--json": ("report", _JSON),
    "--sarif": ("report", _JSON),
    "--pairs": ("file of preference pairs", _PAIRS),
    "--labels": ("file of rated answers", _LABELS),
}
"""Options that name a file which is written at the end: what it is, and how it begins."""


def check_outputs(
    outputs: Mapping[str, str | None], inputs: Iterable[str] = (), *, created: Path | None = None
) -> None:
    """Check, before any work is done, that outputs can be written and that nothing is lost.

    Args:
        outputs: Files or folders to write, by option. None: not asked for. What `--html`, `--json`, `--sarif`,
            `--pairs` and `--labels` name may exist if it is an earlier output of the kind; whether other outputs may
            exist and can be written, their commands decide.
        inputs: Files and folders that are read; other names, such as those of the hub, are ignored.
        created: A folder that the command creates if it is missing.

    Raises:
        UserError: If an output is also read or lies in a folder that is read, if an input lies in an output folder, if
            two outputs are the same file, if one would replace something of another kind, or if one cannot be written.
    """
    read = {given: Path(given).resolve() for given in inputs if Path(given).exists()}
    written: dict[Path, str] = {}
    for option, given in outputs.items():
        if given is None:
            continue
        if not given or "\0" in given:
            raise UserError(f"{option} {given!r}: not a name of a file or folder; choose another.")
        path = Path(given).resolve()
        if option in _FILES:
            _check_no_folder(option, given, path)
        _check_apart(option, given, path, read)
        if path in written:
            raise UserError(f"{option} {given}: the same file as {written[path]}; choose another.")
        written[path] = option
        if option in _FILES:
            if not (created and created.resolve().is_relative_to(path.parent)):
                check_file(option, given)
            _check_replaced(option, given, path)


def check_file(option: str, given: str) -> None:
    """Check, before any work is done, that a file can be written.

    Args:
        option: Names the file.
        given: The file. It may be a device.

    Raises:
        UserError: If it is a folder, or its folder does not exist or cannot be written to.
    """
    path = Path(given).resolve()
    _check_no_folder(option, given, path)
    is_device = path.exists() and not path.is_file()
    if not path.parent.is_dir():
        problem = os.strerror(errno.ENOENT)
    elif not os.access(path if is_device else path.parent, os.W_OK):
        problem = os.strerror(errno.EACCES)
    else:
        return
    raise UserError(
        f"{option} {given}: cannot be written ({problem}); expected a file in an existing folder that you can write "
        "to. Choose another path."
    )


def check_folder(option: str, folder: Path) -> None:
    """Check, before any work is done, that files can be written to a folder, which need not exist.

    Args:
        option: Names the folder.
        folder: The folder.

    Raises:
        UserError: If it, or a folder that it lies in, is a file or cannot be written to.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{option} {folder}: {nearest} is not a folder; choose another.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder}: you cannot write to {nearest}; choose another folder.")


def check_report_folder(option: str, folder: Path, own: str) -> None:
    """Check, before any work is done, that a report would not replace that of another command.

    Args:
        option: Names the folder.
        folder: Where the report goes.
        own: A file that the command writes beside its report, and no other command does.

    Raises:
        UserError: If it would, or the folder cannot be written to.
    """
    check_folder(option, folder)
    if (folder / "report.html").exists() and not (folder / own).exists():
        raise UserError(
            f"{option} {folder}: has the report of another command, which would be replaced; choose another."
        )


def _check_no_folder(option: str, given: str, path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{option} {given}: this is a folder; expected the name of a file.")


def _check_apart(option: str, given: str, path: Path, read: Mapping[str, Path]) -> None:
    for name, source in read.items():
        if path == source:
            raise UserError(f"{option} {given}: is read by this command, and would be replaced; choose another name.")
        if source.is_dir() and path.is_relative_to(source):
            raise UserError(f"{option} {given}: lies in {name}, which is read as a whole; choose another folder.")
        if source.is_relative_to(path):
            raise UserError(f"{option} {given}: holds {name}, which is read; choose another folder.")


def _check_replaced(option: str, given: str, path: Path) -> None:
    if not path.is_file():
        return
    kind, pattern = _FILES[option]
    with path.open("rb") as stream:
        beginning = stream.read(_BEGINNING)
    if beginning and not pattern.match(beginning):
        raise UserError(f"{option} {given}: exists and is not a {kind}; expected a new file, or an earlier {kind}.")
