"""Which base model a run was trained on, by digests of whole files: adapters are of no use on any other."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from data_modules.digests import file_digest, is_settled, stamp
from data_modules.errors import UserError
from lit_sft.files import digest, read_json, write_json
from lit_sft.models.pretrained import local_folder, weight_files

_NOISE = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Settings in config.json that change no result; hub repositories edit them now and then."""

_RANDOM = "random weights"

BaseIdentity = dict[str, str]
"""`name`, and SHA-256 digests of what metrics depend on: `config`, and for adapters `weights`."""


def base_identity(model: PreTrainedModel, *, with_weights: bool) -> BaseIdentity:
    """Identify the model that training starts from.

    Args:
        model: Before any adapters are put in.
        with_weights: Whether its weights matter: they do when they stay as they are and only adapters are saved.
            Files are read whole once, and their digests kept with their size and time.

    Returns:
        The identity; for random weights the digest is of the weights in memory.
    """
    if not model.name_or_path:
        return {"name": _RANDOM} | ({"weights": _digest_of_tensors(model)} if with_weights else {})
    identity, folder = {"name": model.name_or_path}, local_folder(model.name_or_path)
    if folder is None:
        return identity
    if config := read_json(folder / "config.json"):
        identity["config"] = digest({name: value for name, value in config.items() if name not in _NOISE})
    if with_weights:
        files = weight_files(folder, model.config)
        identity["weights"] = digest([(file.name, _remembered_digest(file)) for file in files])
    return identity


def identity_of(backbone: nn.Module) -> BaseIdentity:
    """The identity that `build_backbone` has noted; empty for models made elsewhere."""
    identity: BaseIdentity = backbone.__dict__.get("base_identity", {})
    return identity


def check_base(
    saved: BaseIdentity | None, present: BaseIdentity, where: str, *, allow_changes: bool = False, advice: str = ""
) -> None:
    """Compare the base of a checkpoint or adapter with the one at hand.

    Args:
        saved: As it was when training started. None: an older version did not write it down.
        present: As it is now.
        where: The checkpoint or adapter, for messages.
        allow_changes: Warn of a difference rather than refuse it.
        advice: Another way out, appended to the message.

    Raises:
        UserError: If config or weights differ.
    """
    saved = saved or {}
    for part in ("config", "weights"):
        before, now = saved.get(part), present.get(part)
        if before is None or now is None or before == now:
            continue
        change = (
            f"{where}: trained on another base model than {present['name']}: digest of its {part} {now[:12]}, "
            f"expected {before[:12]}"
        )
        if not allow_changes:
            name = "same seed and config" if saved.get("name") == _RANDOM else saved.get("name")
            raise UserError(f"{change}. Restore the base it was trained on ({name}){advice}.")
        warnings.warn(f"{change}.", stacklevel=2)


def _remembered_digest(path: Path) -> str:
    """The digest of a file, kept on disk for as long as its size and time stay the same."""
    seen, real = stamp(path), os.path.realpath(path)
    key = [real, *seen]
    # without a home or a writable disk it is computed each time
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):
        content: Any = read_json(_notes() / f"{digest(real)}.json")
        if content["key"] == key and content["check"] == digest([key, content["sha256"]]):
            return str(content["sha256"])
    found = file_digest(path)
    if is_settled(seen):
        with contextlib.suppress(OSError, RuntimeError):
            _notes().mkdir(parents=True, exist_ok=True)
            write_json(_notes() / f"{digest(real)}.json", {"key": key, "sha256": found, "check": digest([key, found])})
    return found


def _notes() -> Path:
    return Path(os.environ.get("LIT_SFT_CACHE", "~/.cache/lit_sft")).expanduser() / "digests"


def _digest_of_tensors(model: nn.Module) -> str:
    total = hashlib.sha256()
    state: dict[str, Any] = model.state_dict()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
