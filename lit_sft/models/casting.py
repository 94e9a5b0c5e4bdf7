"""Casts the weights of an exported folder to another float dtype."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_modules.errors import UserError
from data_modules.wording import counted
from lit_sft.files import read_json, write_json

DtypeName = Literal["float32", "bfloat16", "float16"]

DTYPES: dict[DtypeName, torch.dtype] = {name: getattr(torch, name) for name in get_args(DtypeName)}


def cast_folder(folder: Path, name: DtypeName, *, kept: Collection[str] = ()) -> None:
    """Rewrite the safetensors files of a folder in another dtype, and the dtype in its config.json if it has one.

    One file is in memory at a time. Tensors that are not floating-point numbers keep their dtype.

    Args:
        folder: A model or an adapter that nobody reads yet.
        name: The dtype of the weights.
        kept: Names of tensors that keep their dtype too: buffers, which models compute with in float32.

    Raises:
        UserError: If a weight is too large for the dtype; the message names the tensor.
    """
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(file)
        result = {n: t if n in kept else cast(t, DTYPES[name], n) for n, t in tensors.items()}
        aside = file.with_suffix(".cast")  # the tensors may still be read from the file
        save_file(result, aside, metadata)
        aside.replace(file)
    for path in folder.glob("*.safetensors.index.json"):
        index = read_json(path) or {}
        shards = {folder / shard for shard in index["weight_map"].values()}
        index["metadata"]["total_size"] = sum(t.nbytes for shard in shards for t in load_file(shard).values())
        write_json(path, index)
    if config := read_json(folder / "config.json"):
        write_json(folder / "config.json", config | {"dtype": name})


def cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Cast a tensor, unless it has no floating-point numbers.

    Args:
        tensor: Finite numbers of any shape.
        dtype: A float dtype.
        name: Name of the tensor, for messages.

    Raises:
        UserError: If a number is too large for the dtype.
    """
    if not tensor.is_floating_point():
        return tensor
    result = tensor.to(dtype)
    if not (finite := result.isfinite()).all():
        largest = torch.finfo(dtype).max
        raise UserError(
            f"{name} has {counted(int((~finite).sum()), 'weight')} beyond {largest:.5g}, the largest number of "
            f"{str(dtype).removeprefix('torch.')}. Export in bfloat16 or float32."
        )
    return result
