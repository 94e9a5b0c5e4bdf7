"""The training data of a run: where its files are now, and whether they are unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_modules.encoding.cache import records_digest
from data_modules.errors import UserError
from data_modules.records.splits import Sources
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.checkpoints.header import read_header
from lit_sft.fields import Fields
from lit_sft.files import read_yaml

State = Literal["unchanged", "changed", "not verified", "missing", "mixture", "older"]

_VERSION_OF_SPLITS = 5
"""Runs of earlier versions of the encoding held out other records."""

_SPLITS = ("train", "val", "test")
_READING = ("format", "consecutive", "first_answer", "keep_together", "thinking")
_READING_TEXT = ("txt_documents",)
_SHARES = ("val_fraction", "test_fraction", "train_fraction")


@dataclass(frozen=True)
class TrainingData:
    """The records that a run was trained on.

    Attributes:
        named: Training files as the config names them.
        sources: The same with paths that exist; None if the training files are not found.
        state: `changed`: not the records it was trained on. `not verified`: its checkpoint has no digest. `mixture`:
            trained on a mixture, which is not searched. `older`: an earlier version held out other records, so all
            records of the files are searched.
    """

    named: list[str]
    sources: Sources | None
    state: State

    @property
    def description(self) -> str:
        """In words, for the report."""
        files = ", ".join(self.named)
        return {
            "unchanged": files,
            "not verified": f"{files} (not verified: the run has no digest of them)",
            "changed": f"{files} (CHANGED since training)",
            "missing": f"not searched: {files} not found",
            "mixture": f"not searched: {files} (a mixture, --data.mix)",
            "older": f"{files} (all records, including held-out ones: an earlier version split them differently)",
        }[self.state]


def training_data_of(source: str) -> TrainingData | None:
    """Find a model's training data; None if the model does not belong to a run, or the run has no training files.

    Args:
        source: A run folder, or a checkpoint or model folder inside one.

    Raises:
        UserError: If the run's config is damaged.
    """
    run = _run_of(Path(source))
    if run is None:
        return None
    sources, is_mixture = _sources_of(run / "config.yaml")
    if is_mixture:
        return TrainingData(sources.files["train"], None, "mixture")
    if "train" not in sources.files:
        return None
    identity = _identity_of(run)
    digests = {split: _digest_in(identity, split) for split in sources.files}
    found = {split: _located(files, run, digests[split]) for split, files in sources.files.items()}
    named = sources.files["train"]
    if found["train"] is None:
        return TrainingData(named, None, "missing")
    present = {split: files for split, files in found.items() if files is not None}
    # fixed fractions: a split whose files are gone must not be held out of the training files instead
    located = replace(sources, files=present, fractions=sources.shares)
    if digests["train"] is None:
        return TrainingData(named, located, "not verified")
    if _is_older(identity) and (sources.shares or sources.train_fraction < 1):
        return TrainingData(named, replace(located, fractions={}, train_fraction=1.0), "older")
    is_same = records_digest(present["train"]) == digests["train"]
    return TrainingData(named, located, "unchanged" if is_same else "changed")


def _run_of(place: Path) -> Path | None:
    """The run folder of a checkpoint or model, or the folder itself."""
    if place.suffix != ".ckpt" and (place / "config.yaml").is_file():
        return place
    run = place.parent.parent if place.suffix == ".ckpt" else place.parent
    return run if (run / "config.yaml").is_file() and (run / "checkpoints").is_dir() else None


def _is_older(identity: dict[str, Any]) -> bool:
    version = identity.get("version of the encoding")
    return isinstance(version, str) and version.isdecimal() and int(version) < _VERSION_OF_SPLITS


def _sources_of(config: Path) -> tuple[Sources, bool]:
    """The data files named in a run's config, and whether they are a mixture."""
    values = Fields(read_yaml(config, advice="A run's settings are written when it starts."), str(config))
    data = values.fields("data")
    settings: dict[str, Any] = {name: data.number(name) for name in _SHARES if name in data}
    for split in _SPLITS:
        if split in data:
            settings[split] = data.texts(split) if isinstance(data.values[split], list) else data.text(split)
    settings |= {name: data.text(name) for name in (*_READING, *_READING_TEXT) if name in data}
    if "columns" in data:
        settings["columns"] = dict(data.fields("columns").values)
    try:
        mix = data.values.get("mix")
        kind = TextDataModule if values.values.get("data_module") == "text" else SFTDataModule
        return kind(**settings, mix=mix, on_invalid="drop").sources, bool(mix)
    except UserError as error:
        raise UserError(f"{config}: {error}") from None


def _located(files: list[str], run: Path, digest: str | None) -> list[str] | None:
    """Find files relative to the working folder, or to a parent of the run folder.

    Files with the digest of the training data come first; None if no folder has all files.
    """
    found: list[str] | None = None
    for paths in _candidates(files, run):
        if all(Path(path).exists() for path in paths):
            if digest is None or records_digest(paths) == digest:
                return paths
            found = found or paths
    return found


def _candidates(files: list[str], run: Path) -> Iterator[list[str]]:
    yield files
    for folder in run.resolve().parents:
        yield [str(folder / file) for file in files]


def _identity_of(run: Path) -> dict[str, Any]:
    """Identity of a run from one of its checkpoints; empty if none can be read."""
    for checkpoint in sorted((run / "checkpoints").glob("*.ckpt")):
        identity = (read_header(checkpoint) or {}).get("identity")
        if isinstance(identity, dict):
            return dict(identity)
    return {}


def _digest_in(identity: dict[str, Any], split: str) -> str | None:
    """Digest of a split's records, stored as JSON in a checkpoint."""
    value = identity.get(f"records of --data.{split}")
    return value.strip('"') if isinstance(value, str) else None
