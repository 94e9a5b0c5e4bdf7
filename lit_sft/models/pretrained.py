"""Loads pretrained weights completely or not at all: transformers would fill in missing weights at random."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from data_modules.digests import check_digests
from data_modules.errors import UserError, UserNotice
from data_modules.wording import counted, listed, reason_of

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_FLOATS = {"F64", "F32", "F16", "BF16"}

_CONSTANTS = (".attn.masked_bias", ".attention.masked_bias")
"""Constants in old files that are now part of the model code; transformers handles the others itself."""

_OTHER_TASKS = (
    "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice",
    "ForNextSentencePrediction", "ForPreTraining", "EncoderModel", "ForSpeechSeq2Seq", "ForImageClassification",
)  # fmt: skip
"""Endings of transformers' class names for other tasks."""

_SECONDS_FOR_HUB = 10


def check_config(config: PretrainedConfig, where: str) -> None:
    """Refuse models that cannot be loaded or are not causal language models.

    Args:
        config: The model's config.
        where: The model as the user named it, for messages.

    Raises:
        UserError: If the model is quantised, an encoder, made for another task, or needs code from the hub.
    """
    attention = str(getattr(config, "_attn_implementation", None))
    if "/" in attention:
        raise UserError(
            f"{where}: config.json names attention code on the hub ({attention}), which is never run. Remove "
            "`attn_implementation` from that file; the model's own attention gives the same metrics."
        )
    quantization = getattr(config, "quantization_config", None)
    if quantization:
        settings = quantization if isinstance(quantization, dict) else quantization.to_dict()
        raise UserError(
            f"{where}: quantised models ({settings.get('quant_method', 'unknown method')}) are not supported. Use the "
            "original float16, bfloat16 or float32 weights."
        )
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if name is None and "AutoModelForCausalLM" in str(getattr(config, "auto_map", "")):
        return  # the model's own code declares it
    # models on both lists attend in both directions, unless configured as decoders
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    architectures = config.architectures if isinstance(config.architectures, list) else []
    made_for = [task for task in map(str, architectures) if task.endswith(_OTHER_TASKS) and task != name]
    if name is None or is_encoder or config.is_encoder_decoder or made_for:
        raise UserError(
            f"{where}: {', '.join(made_for) or config.model_type} is not a causal language model. Use one that is, "
            "such as gpt2, llama or qwen2."
        )


def load_pretrained(name: str, config: PretrainedConfig, *, trust_remote_code: bool) -> PreTrainedModel:
    """Load a model with all of its weights, in float32.

    Args:
        name: Folder or hub name.
        config: The model's config.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        UserError: If weights are missing, unexpected, of the wrong shape, not finite or changed since their export.
    """
    where = f"--model.backbone.pretrained {name}"
    if Path(name).is_dir():
        check_digests(Path(name))
        _check_files(Path(name), config, where)
    try:
        with _without_report():
            model, found = AutoModelForCausalLM.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                ignore_mismatched_sizes=True,  # reported below, instead of an error with a table
                output_loading_info=True,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # a broken config raises any of a dozen exception types
        raise UserError(
            f"{where}: the weights could not be loaded ({first_line(error)}). Only safetensors files can be loaded; "
            "check that they are there, and check config.json."
        ) from error
    if not Path(name).is_dir() and (snapshot := local_folder(name)):
        _check_files(snapshot, config, where)  # just downloaded
    _check_complete(model, found, where)
    check_finite(model, where)
    _check_tie(model, where)
    loaded: PreTrainedModel = model
    return loaded


def local_folder(name: str) -> Path | None:
    """The folder of a model, or its hub snapshot on this machine."""
    if Path(name).is_dir():
        return Path(name)
    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def check_on_hub(name: str) -> None:
    """Refuse a name that is neither on this machine nor on the hub, with one question to the hub.

    Loading would ask for each file, several times each.

    Args:
        name: A folder, or a name that is possible on the hub.

    Raises:
        UserError: If the hub has no such model, or cannot be reached and the model was never downloaded.
    """
    if local_folder(name):
        return
    try:
        HfApi().model_info(name, timeout=_SECONDS_FOR_HUB)
    except RepositoryNotFoundError:
        raise UserError(
            f"{name}: no such folder (in {Path.cwd()}), and no such model on the hub, or not for you. Check the name; "
            "if the model is private, log in with `hf auth login`."
        ) from None
    except HfHubHTTPError:
        pass  # the hub is in trouble, but may still have the files
    except Exception as error:  # depends on the library under the hub's client
        raise UserError(
            f"{name}: no such folder (in {Path.cwd()}), and the hub cannot be asked for a model of this name "
            f"({reason_of(error)}). Check the path or name, and the connection."
        ) from None


def weight_files(folder: Path, config: PretrainedConfig | None = None) -> list[Path]:
    """The files from which transformers reads a model's weights; none without safetensors.

    Args:
        folder: The model's folder.
        config: The model's config, which may name an unusual file.

    Raises:
        UserError: If the index of shards cannot be read.
    """
    usual = [name for name in (_SINGLE, _INDEX) if (folder / name).is_file()]
    name = str(getattr(config, "transformers_weights", None) or "".join(usual[:1]))
    if not name.endswith(".index.json"):
        return [folder / name] if name else []
    return [folder / shard for shard in sorted({*_index(folder / name).values()})]


def check_finite(model: nn.Module, where: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: If there are any; the message names the first tensor.
    """
    for name, parameter in model.named_parameters():
        # the sum is fast, and finite only if all weights are; but it may also overflow
        if not parameter.detach().sum().isfinite() and not (finite := parameter.isfinite()).all():
            raise UserError(
                f"{where}: {name} has {counted(int((~finite).sum()), 'NaN or infinite weight')}; expected finite "
                "numbers. The file is damaged, or the training that wrote it diverged: use another."
            )


def check_vocabulary(model: PreTrainedModel, num_ids: int, name: str) -> None:
    """Check that the tokenizer's ids fit the model's embedding, which may have more rows (Qwen pads it), never fewer.

    Warns if the tokenizer lacks the model's end token, and so probably belongs to another model.

    Args:
        model: The model.
        num_ids: One more than the highest id of its tokenizer, without new tokens.
        name: Name of the tokenizer, for messages.

    Raises:
        UserError: If the tokenizer has ids that the model does not know.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if num_ids > rows:
        raise UserError(
            f"tokenizer {name} has token ids up to {num_ids - 1}, but the model's embedding has {rows} rows; set "
            "`--model.backbone.tokenizer` to the tokenizer this model was trained with."
        )
    end = model.config.eos_token_id
    beyond = [index for index in (end if isinstance(end, list) else [end]) if index is not None and index >= num_ids]
    if beyond:
        warnings.warn(
            f"tokenizer {name} has token ids up to {num_ids - 1}, but the model's end token has id {beyond[0]}: this "
            "looks like another model's tokenizer. Set `--model.backbone.tokenizer` to the one it was trained with.",
            UserNotice,
            stacklevel=2,
        )


def first_line(error: BaseException) -> str:
    """The first line of an error message, or the type of an error without one."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return line if " " in line else f"{type(error).__name__} {line}".strip()


@contextmanager
def _without_report() -> Iterator[None]:
    """Suppress the forty-line table that transformers logs; our error says the same in one line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _check_files(folder: Path, config: PretrainedConfig, where: str) -> None:
    """Check names, dtypes and the index before anything is loaded. Reads only the headers of the files."""
    if (folder / _SINGLE).is_file() and (folder / _INDEX).is_file():
        raise UserError(f"{where}: contains both {_SINGLE} and {_INDEX}; remove the one that does not belong to it.")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{where}: contains both a model and an adapter; move the adapter to a separate folder.")
    if any(folder.glob("*.distcp")):
        raise UserError(f"{where}: contains a distributed checkpoint (*.distcp); save the model as safetensors first.")
    owners: dict[str, str] = {}
    for file in weight_files(folder, config):
        if not file.is_file():
            raise UserError(f"{where}: {file.name} is missing; copy the whole folder again.")
        for name in _checked_names(file, where):
            if name in owners:
                raise UserError(
                    f"{where}: {name} is in both {owners[name]} and {file.name}; expected it in one. The shards of two "
                    "models are mixed: copy the folder again."
                )
            owners[name] = file.name
    if (folder / _INDEX).is_file() and (absent := _index(folder / _INDEX).keys() - owners.keys()):
        raise UserError(f"{where}: no shard contains {listed(sorted(absent))} from the index; copy the folder again.")


def _checked_names(file: Path, where: str) -> list[str]:
    """Names of the tensors in a file. Refuses weights that are not floating-point numbers."""
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
            ranks = {name: len(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{where}: {file.name} cannot be read ({first_line(error)}): damaged or truncated. Copy or download it "
            "again."
        ) from None
    # masks in old GPT-2 files are integers of rank 4; counters have rank 0
    if odd := [name for name, dtype in dtypes.items() if dtype not in _FLOATS and ranks[name] in (1, 2, 3)]:
        raise UserError(
            f"{where}: {odd[0]} has dtype {dtypes[odd[0]]}; expected floats of at least 16 bits. Quantised weights "
            "are not supported: use the original ones."
        )
    return list(dtypes)


def _index(path: Path) -> dict[str, str]:
    """The shard of each tensor, from the index."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not isinstance(content.get("metadata"), dict):
        raise UserError(
            f"{path}: damaged; expected a JSON object with `metadata` and `weight_map`. Copy the folder again."
        )
    if any(Path(str(shard)).name != shard for shard in shards.values()):
        raise UserError(f"{path}: expected plain file names of shards in this folder. Copy the folder again.")
    return shards


def _check_complete(model: PreTrainedModel, found: dict[str, Any], where: str) -> None:
    shapes = [f"{n}: {tuple(a)} in the file, {tuple(b)} in config.json" for n, a, b in found["mismatched_keys"]]
    unexpected = [name for name in found["unexpected_keys"] if not name.endswith(_CONSTANTS)]
    faults = [
        f"{len(names)} {kind} ({listed(sorted(names))})"
        for kind, names in (
            ("missing", found["missing_keys"]),
            ("that the model does not have", unexpected),
            ("of the wrong shape", shapes),
        )
        if names
    ]
    if not faults:
        return
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    is_head = found["missing_keys"] == {f"{head}.weight"} and len(faults) == 1
    advice = " If its head is tied to the embedding, set tie_word_embeddings to true in config.json." if is_head else ""
    raise UserError(
        f"{where}: the weights do not match config.json: {'; '.join(faults)}. Copy or download the folder again, with "
        f"the config.json that belongs to its weights.{advice}"
    )


def _check_tie(model: PreTrainedModel, where: str) -> None:
    """Untie the head and the embedding if the config ties them but the file has different weights for the two."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or not getattr(model.config, "tie_word_embeddings", False) or head.weight is embedding.weight:
        return
    model.config.tie_word_embeddings = False
    warnings.warn(
        f"{where}: config.json ties the head to the embedding, but the file has different weights for the two. They "
        "are kept apart; set tie_word_embeddings to false in config.json.",
        UserNotice,
        stacklevel=2,
    )
