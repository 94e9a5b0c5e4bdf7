"""Which files a run reads, with their digests: `sources.json` in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from data_modules.digests import file_digest
from data_modules.records.data_files import data_files
from data_modules.records.readers import is_hub_name, source_fingerprint

SOURCES = "sources.json"

_DATASHEET = "datasheet.md"
"""What `synthesize` writes beside its records."""


def sources_of(data: Namespace) -> dict[str, list[dict[str, Any]]]:
    """The files of each split that a run reads; splits that are held out of the training files have none.

    Args:
        data: The settings of the run's data.

    Returns:
        By split, the `name` of every file, its `sha256`, and whether a `datasheet` lies beside it. A hub dataset has
        its own `fingerprint` instead.
    """
    given = {split: _as_list(data.get(split)) for split in ("train", "val", "test")}
    given["train"] += [file for source in data.get("mix") or [] for file in _as_list(_files_of_mix(source))]
    return {split: [row for name in names for row in _rows(name)] for split, names in given.items() if names}


def _rows(name: str) -> list[dict[str, Any]]:
    if is_hub_name(name):
        return [{"name": name, "fingerprint": source_fingerprint(name)}]
    return [
        {"name": file.name, "sha256": file_digest(file), "datasheet": file.with_name(_DATASHEET).is_file()}
        for file in data_files(name)
    ]


def _files_of_mix(source: Any) -> Any:
    return source["files"] if isinstance(source, dict) else source.files


def _as_list(value: str | Path | list[str] | None) -> list[str]:
    return [] if value is None else [str(each) for each in (value if isinstance(value, list) else [value])]
