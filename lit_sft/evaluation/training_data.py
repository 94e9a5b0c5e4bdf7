"""What a model was trained on, as its run folder says: where those files are now, and whether they are unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from data_modules.encoding.cache import records_digest
from data_modules.records.splits import Sources
from data_modules.sft_data_module import SFTDataModule
from lit_sft.fields import Fields
from lit_sft.files import read_yaml

State = Literal["unchanged", "changed", "not verified", "missing"]

_SPLITS = ("train", "val", "test")
_SHARES = ("val_fraction", "test_fraction", "train_fraction")


@dataclass(frozen=True)
class TrainingData:
    """The records that a run was trained on.

    Attributes:
        named: Its training files, as its config names them.
        sources: Where its records are now, with paths that exist; None where the training files are not found.
        state: `changed`: other records than it was trained on. `not verified`: its checkpoint does not say.
    """

    named: list[str]
    sources: Sources | None
    state: State

    @property
    def said(self) -> str:
        """In words, for the page."""
        files = ", ".join(self.named)
        return {
            "unchanged": files,
            "not verified": f"{files} (not verified: the run does not say what they held)",
            "changed": f"{files} (CHANGED since the training)",
            "missing": f"not looked into: {files} not found",
        }[self.state]


def training_data_of(source: str) -> TrainingData | None:
    """What a model was trained on; None if it is not of a run, or the run was trained on no files.

    Args:
        source: A run folder, a checkpoint in one, or a folder with a model in one.

    Raises:
        UserError: If the run's config is damaged.
    """
    run = _run_of(Path(source))
    if run is None:
        return None
    sources = _sources_of(run / "config.yaml")
    if "train" not in sources.files:
        return None
    identity = _identity_of(run)
    digests = {split: _digest_in(identity, split) for split in sources.files}
    found = {split: _located(files, run, digests[split]) for split, files in sources.files.items()}
    named = sources.files["train"]
    if found["train"] is None:
        return TrainingData(named, None, "missing")
    present = {split: files for split, files in found.items() if files is not None}
    # of a split whose files are gone, no share of the training files takes the place
    located = replace(sources, files=present, fractions=sources.shares)
    if digests["train"] is None:
        return TrainingData(named, located, "not verified")
    is_same = records_digest(present["train"]) == digests["train"]
    return TrainingData(named, located, "unchanged" if is_same else "changed")


def _run_of(place: Path) -> Path | None:
    """The run folder that a checkpoint or model lies in, or is."""
    if place.suffix != ".ckpt" and (place / "config.yaml").is_file():
        return place
    run = place.parent.parent if place.suffix == ".ckpt" else place.parent
    return run if (run / "config.yaml").is_file() and (run / "checkpoints").is_dir() else None


def _sources_of(config: Path) -> Sources:
    """Where a run's config says its records come from."""
    values = Fields(read_yaml(config, advice="A run's settings are written when it starts."), str(config))
    data = values.fields("data")
    settings: dict[str, Any] = {name: data.number(name) for name in _SHARES if name in data}
    for split in _SPLITS:
        if split in data:
            settings[split] = data.texts(split) if isinstance(data.values[split], list) else data.text(split)
    sources = SFTDataModule(**settings).sources
    form = data.text("format") if "format" in data else None
    return replace(sources, format=form, on_invalid="drop")


def _located(files: list[str], run: Path, digest: str | None) -> list[str] | None:
    """Files where they are now: from the working folder, or from one that the run folder lies in.

    Those that hold what was trained on come first; None if no folder has all of them.
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
    """What a checkpoint says of its run; nothing where there is none that can be read."""
    for checkpoint in sorted((run / "checkpoints").glob("*.ckpt")):
        try:
            saved = torch.load(checkpoint, map_location="meta", mmap=True, weights_only=True)
        except Exception:  # a damaged file ends in any of a dozen types
            continue
        if isinstance(saved, dict) and isinstance(saved.get("identity"), dict):
            return dict(saved["identity"])
    return {}


def _digest_in(identity: dict[str, Any], split: str) -> str | None:
    """The digest of a split's records, which a checkpoint holds as JSON."""
    value = identity.get(f"records of --data.{split}")
    return value.strip('"') if isinstance(value, str) else None
