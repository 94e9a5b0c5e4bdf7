"""Writes a GGUF folder: model.gguf with the tokenizer and chat template, and Ollama's Modelfile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import nn
from transformers import PreTrainedTokenizerBase

from data_modules.digests import DIGESTS, write_digests
from lit_sft.files import replaced_folder, write_text
from lit_sft.gguf.architectures import NamedTensor, architecture_of, tensors_of
from lit_sft.gguf.modelfile import modelfile_of
from lit_sft.gguf.vocabulary import Vocabulary, vocabulary_of, write_vocabulary
from lit_sft.models.adapters import causal_lm
from lit_sft.models.casting import cast
from lit_sft.models.saving import AnyData, exported_tokenizer

GGUFType = Literal["f32", "f16", "q8_0"]

MODEL, MODELFILE = "model.gguf", "Modelfile"

_FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
assert set(_FILE_TYPES) == set(get_args(GGUFType))

_Q8_BLOCK = 32
"""Columns that share a scale."""

_ALWAYS_FULL = ("position_embd.weight",)
"""Matrices that llama.cpp reads in float32 only."""


def export_gguf(
    model: nn.Module, folder: Path, data: AnyData, kind: GGUFType, *, card: Callable[[nn.Module], str] | None = None
) -> list[str]:
    """Write a model for llama.cpp and Ollama. Only one converted tensor is in memory at a time.

    Args:
        model: A causal language model without adapters.
        folder: The folder to write; created if needed.
        data: Its tokenizer and chat template are written into the file.
        kind: Type of the matrices: float32, float16, or 8 bits with a scale for every 32 weights. Vectors are float32.
        card: Gives the model card. None: no README.md.

    Returns:
        Remarks: what llama.cpp reads differently from transformers.

    Raises:
        UserError: If llama.cpp could not read the model or its tokenizer, or a weight is too large for float16.
        OSError: If the folder cannot be written. An existing folder is then unchanged.
    """
    found = architecture_of(model.config)
    tokenizer = exported_tokenizer(data)
    vocabulary = vocabulary_of(tokenizer)
    tensors = list(tensors_of(causal_lm(model), found, len(vocabulary.tokens)))
    with replaced_folder(folder, is_written={MODEL, MODELFILE, DIGESTS, "README.md"}.__contains__) as aside:
        writer = GGUFWriter(aside / MODEL, found.name)
        try:
            _write_header(writer, model, vocabulary, tokenizer, data, kind)
            found.write(writer, model.config)
            _write_tensors(writer, tensors, kind)
        finally:
            writer.close()
        write_text(aside / MODELFILE, modelfile_of(data.encoder.template, MODEL))
        if card:
            write_text(aside / "README.md", card(model))
        write_digests(aside)
    return vocabulary.remarks()


def _write_header(
    writer: GGUFWriter,
    model: nn.Module,
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    data: AnyData,
    kind: GGUFType,
) -> None:
    writer.add_file_type(_FILE_TYPES[kind])
    if kind == "q8_0":
        writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(len(vocabulary.tokens))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    # without them, llama.cpp takes the ids of GPT-2's or others' vocabularies
    start = next(index for index in (bos, eos, data.end_token_id) if index is not None)
    special = {"bos": start, "eos": data.end_token_id, "eot": data.end_token_id, "pad": data.pad_token_id}
    write_vocabulary(writer, vocabulary, special)
    writer.add_add_bos_token(data.encoder.starts_documents)
    writer.add_add_eos_token(False)
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        template = [{"name": name, "template": source} for name, source in template.items()]
    if template:
        writer.add_chat_template(template)


def _write_tensors(writer: GGUFWriter, tensors: Iterable[NamedTensor], kind: GGUFType) -> None:
    tensors = list(tensors)
    for tensor in tensors:
        of_tensor = _type_of(tensor, kind)
        if of_tensor is GGMLQuantizationType.Q8_0:
            shape = quant_shape_to_byte_shape(tensor.shape, of_tensor)
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), of_tensor)
        else:
            dtype = np.dtype(np.float16 if of_tensor is GGMLQuantizationType.F16 else np.float32)
            size = int(np.prod(tensor.shape)) * dtype.itemsize
            writer.add_tensor_info(tensor.name, tensor.shape, dtype, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(_values_of(tensor, _type_of(tensor, kind)))


def _type_of(tensor: NamedTensor, kind: GGUFType) -> GGMLQuantizationType:
    if kind == "f32" or len(tensor.shape) == 1 or tensor.name in _ALWAYS_FULL:
        return GGMLQuantizationType.F32
    if kind == "q8_0" and tensor.shape[-1] % _Q8_BLOCK == 0:
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType.F16


def _values_of(tensor: NamedTensor, kind: GGMLQuantizationType) -> Any:
    values = tensor.read().cpu().contiguous()
    if kind is GGMLQuantizationType.F16:
        return cast(values, torch.float16, tensor.name).numpy()
    return quantize(values.numpy(), kind) if kind is GGMLQuantizationType.Q8_0 else values.numpy()
