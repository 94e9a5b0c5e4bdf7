"""`--data.columns`: reads the fields of a format from columns with other names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_modules.errors import UserError
from data_modules.records.formats import FORMATS
from data_modules.records.known_fields import MESSAGE_FIELDS, RECORD_FIELDS, Use
from data_modules.records.record import Record, readable
from data_modules.wording import did_you_mean

Columns = Mapping[str, str]
"""The user's column by the field that is read from it."""

_LISTS = tuple(name for layout in FORMATS.values() for name in layout.message_lists)
_HONOURED = {name for known in RECORD_FIELDS if known.use is Use.HONOURED for name in known.names}
_OF_FORMATS = {name for layout in FORMATS.values() for name in (*layout.fields, *layout.optional)}
_OF_RECORD = _OF_FORMATS | _HONOURED
_OF_MESSAGE = {name for layout in FORMATS.values() for name in layout.of_message} | {
    name for known in MESSAGE_FIELDS if known.use is Use.HONOURED for name in known.names
}


def check_columns(columns: Columns, format: str | None = None, *, option: str = "--data.columns") -> None:
    """Refuse columns for unknown fields, and two fields from one column.

    Args:
        columns: The user's columns.
        format: The format of the records, if it is known.
        option: How the user sets them, for error messages.

    Raises:
        UserError: Likewise.
    """
    for field, column in columns.items():
        if field not in _OF_RECORD | _OF_MESSAGE:
            known = sorted(_OF_RECORD | _OF_MESSAGE)
            hint = did_you_mean(str(field), known)
            raise UserError(
                f"{option}: no format has the field '{field}'; expected FIELD: COLUMN with one of the fields "
                f"{', '.join(known)}{f'; {hint}' if hint else '.'}"
            )
        if not isinstance(column, str) or not column:
            raise UserError(f"{option}: the column of '{field}' is {column!r}; expected the name of a column.")
        if format and field in _OF_FORMATS and field not in (*FORMATS[format].fields, *FORMATS[format].optional):
            raise UserError(f"{option}: format '{format}' has no field '{field}'; correct one of the two.")
    for fields in (_OF_RECORD, _OF_MESSAGE):
        owners: dict[str, str] = {}
        for field, column in _only(columns, fields).items():
            if column in owners:
                raise UserError(
                    f"{option}: {owners[column]} and {field} are both read from the column '{column}'; "
                    "expected a column of its own for each. Remove one of the two."
                )
            owners[column] = field


def renamed(record: Record, columns: Columns, found: set[str]) -> Record:
    """A record with the fields of a format instead of the user's columns.

    A record with none of the columns stays as it is, so that files of other formats can be read along with it.

    Args:
        record: The record as in its file.
        columns: The user's columns.
        found: Columns that some record has; those of this record are added.
    """
    if not columns:
        return record
    fields = _renamed(record.fields, _only(columns, _OF_RECORD), found)
    of_message = _only(columns, _OF_MESSAGE)
    for name in _LISTS if of_message else ():
        if isinstance(items := fields.get(name), list):
            messages = [_renamed(item, of_message, found) if isinstance(item, dict) else item for item in items]
            fields = {**fields, name: messages}
    used = {field: column for field, column in columns.items() if column in record.fields}
    return Record(fields, record.origin, used)


def in_columns(message: str, record: Record, columns: Columns) -> str:
    """An error message about a renamed record in terms of the user's columns.

    Args:
        message: The message.
        record: The record as in its file.
        columns: The user's columns.
    """
    for field, column in _only(columns, _OF_RECORD).items():
        if column in record.fields:
            message = message.replace(f"field '{field}'", f"field '{readable(column)}'")
    missing = {
        field: column
        for field, column in _only(columns, _OF_RECORD).items()
        if column not in record.fields and (re.search(rf"\b{field}\b", message) or _is_answer(field, message))
    }
    return f"{message} {_unread(missing, record.fields)}" if missing else message


def _is_answer(field: str, message: str) -> bool:
    return field in ("output", "completion") and ": no answer to train on" in message


def check_found(columns: Columns, found: set[str], names: Iterable[str], *, option: str = "--data.columns") -> None:
    """Refuse columns that no record has.

    Args:
        columns: The user's columns.
        found: Columns that some record has.
        names: Other fields of the records.
        option: How the user sets them, for error messages.

    Raises:
        UserError: If a column is missing.
    """
    missing = {field: column for field, column in columns.items() if column not in found}
    if missing:
        raise UserError(_unread(missing, names, what="no record has", option=option))


def _renamed(fields: dict[str, Any], columns: Columns, found: set[str]) -> dict[str, Any]:
    field_of = {column: field for field, column in columns.items() if column in fields}
    if not field_of:
        return fields
    found.update(field_of)
    # a column whose name is that of a field read from elsewhere stays, under a name that is reported as not used
    return {
        field_of.get(name) or (f"{name} (own column)" if name in columns else name): value
        for name, value in fields.items()
    }


def _unread(
    missing: Columns,
    names: Iterable[str],
    *,
    what: str = "this record does not have",
    option: str = "--data.columns",
) -> str:
    fields = ", ".join(f"{field} from '{column}'" for field, column in missing.items())
    hints = (did_you_mean(column, names) for column in missing.values())
    hint = next(filter(None, hints), "correct the name, or remove it.")
    return f"`{option}` reads {fields}, which {what}; {hint}"


def _only(columns: Columns, fields: set[str]) -> dict[str, str]:
    return {field: column for field, column in columns.items() if field in fields}
