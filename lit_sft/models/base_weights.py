"""Identifies the base model of a run by digests of its files: an adapter works only on the base it was trained on."""

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
from data_modules.errors import UserError, UserNotice
from lit_sft.files import digest, read_json, write_json
from lit_sft.models.pretrained import local_folder, weight_files

_NOISE = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Settings in config.json that do not affect results; hub repositories sometimes edit them."""

_RANDOM = "random weights"

BaseIdentity = dict[str, str]
"""`name`, and SHA-256 digests of everything that affects metrics: `config`, and for adapters `weights`. Also, where
they apply, `quantization` of the weights, and `adapter` and `adapter_weights` of an adapter that training continues."""


def base_identity(model: PreTrainedModel, *, with_weights: bool) -> BaseIdentity:
    """Identify the model that training starts from.

    Args:
        model: The model before any adapters are added.
        with_weights: Whether to include the weights: needed if they are frozen and only adapters are saved. Each file
            is read once; its digest is cached with its size and time.

    Returns:
        The identity. For random weights, the digest of the weights in memory.
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
        identity["weights"] = digest([(file.name, _cached_digest(file)) for file in files])
    return identity


def quick_identity(pretrained: str | None) -> str | None:
    """Identify pretrained weights by their config and the first MiB of each file, or by their hub name.

    Every checkpoint records it, including those of full fine-tuning, so this function must not read whole files as
    `base_identity` does.
    """
    if pretrained is None or not Path(pretrained).is_dir():
        return pretrained
    found = hashlib.sha256()
    for file in sorted([*Path(pretrained).glob("config.json"), *Path(pretrained).glob("*.safetensors")]):
        with file.open("rb") as stream:
            found.update(f"{file.name} {file.stat().st_size} ".encode() + stream.read(2**20))
    return f"weights {found.hexdigest()[:16]}"


def identity_of(backbone: nn.Module) -> BaseIdentity:
    """The identity stored by `build_backbone`; empty for models built elsewhere."""
    identity: BaseIdentity = backbone.__dict__.get("base_identity", {})
    return identity


def check_base(
    saved: BaseIdentity | None, present: BaseIdentity, where: str, *, allow_changes: bool = False, advice: str = ""
) -> None:
    """Check that a checkpoint or adapter belongs to the current base model.

    Args:
        saved: The base it was trained on. None: saved by an older version, which did not record it.
        present: The current base.
        where: The checkpoint or adapter, for messages.
        allow_changes: Warn about differences instead of refusing them.
        advice: An alternative to append to the message.

    Raises:
        UserError: If the config or the weights differ.
    """
    saved = saved or {}
    for part in ("config", "weights", "adapter"):
        before, now = saved.get(part), present.get(part)
        if before is None or now is None or before == now:
            continue
        is_random = saved.get("name") == present["name"] == _RANDOM
        other = (
            "other random weights (another seed or config)"
            if is_random
            else f"a base model other than {present['name']}"
        )
        change = f"{where}: trained on {other}: digest of its {part} {now[:12]}, expected {before[:12]}"
        if not allow_changes:
            name = "same seed and config" if saved.get("name") == _RANDOM else saved.get("name")
            raise UserError(f"{change}. Restore the base it was trained on ({name}){advice}.")
        warnings.warn(f"{change}.", UserNotice, stacklevel=2)


def _cached_digest(path: Path) -> str:
    """The digest of a file, cached on disk while its size and time stay the same."""
    seen, real = stamp(path), os.path.realpath(path)
    key = [real, *seen]
    # without a home folder or a writable disk, it is computed every time
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):
        content: Any = read_json(_digest_cache() / f"{digest(real)}.json")
        if content["key"] == key and content["check"] == digest([key, content["sha256"]]):
            return str(content["sha256"])
    found = file_digest(path)
    if is_settled(seen):
        with contextlib.suppress(OSError, RuntimeError):
            _digest_cache().mkdir(parents=True, exist_ok=True)
            write_json(
                _digest_cache() / f"{digest(real)}.json", {"key": key, "sha256": found, "check": digest([key, found])}
            )
    return found


def _digest_cache() -> Path:
    return Path(os.environ.get("LIT_SFT_CACHE", "~/.cache/lit_sft")).expanduser() / "digests"


def _digest_of_tensors(model: nn.Module) -> str:
    total = hashlib.sha256()
    state: dict[str, Any] = model.state_dict()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
