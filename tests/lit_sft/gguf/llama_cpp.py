"""A GGUF file behind llama.cpp's own server in this process, and its greedy answers beside transformers'."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch


class LlamaCpp:
    """A loaded GGUF file.

    Args:
        path: The file.
        context_length: Maximum number of tokens of a prompt and its answer.
        is_full: Whether keys and values are kept in float32; llama.cpp's default is float16.
    """

    def __init__(self, path: Path, context_length: int, *, is_full: bool = True) -> None:
        xllamacpp = pytest.importorskip("xllamacpp", reason="needs `pip install --no-deps xllamacpp`")
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = str(path), context_length, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.verbosity = -1
        if is_full:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def post(self, path: str, **body: Any) -> Any:
        """The reply to a request."""
        request = urllib.request.Request(
            self._server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)

    def ids(self, text: str) -> list[int]:
        """The tokens of a prompt."""
        found: list[int] = self.post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        return found

    def prompt(self, messages: list[dict[str, str]]) -> str:
        """The text of a chat, by the template in the file."""
        found: str = self.post("/apply-template", messages=messages)["prompt"]
        return found

    def greedy(self, ids: list[int], length: int) -> list[int]:
        """The most likely answer to a prompt, without the end token."""
        reply = self.post(
            "/completion", prompt=ids, n_predict=length, temperature=0, return_tokens=True, cache_prompt=False
        )
        tokens: list[int] = reply["tokens"]
        return tokens


@dataclass(frozen=True)
class Difference:
    """The first token in which two greedy answers differ.

    Attributes:
        prompt: Number of the prompt.
        place: Number of the token in the answer.
        expected: transformers' token.
        found: llama.cpp's.
        gap: How much larger transformers' logit of the first is.
    """

    prompt: int
    place: int
    expected: int
    found: int | None
    gap: float


@torch.no_grad()
def differences(model: Any, prompts: Sequence[list[int]], server: LlamaCpp, length: int) -> list[Difference]:
    """Compare greedy answers with those of `generate`.

    Args:
        model: A transformers model that stops on its end token.
        prompts: Token ids.
        server: The same model in llama.cpp.
        length: Maximum number of tokens of an answer.
    """
    differing = []
    end = model.generation_config.eos_token_id
    for number, ids in enumerate(prompts):
        made = model.generate(torch.tensor([ids]), max_new_tokens=length, do_sample=False)[0, len(ids) :].tolist()
        expected, found = (row[: row.index(end)] if end in row else row for row in (made, server.greedy(ids, length)))
        if expected == found:
            continue
        same = [a == b for a, b in zip(expected, found, strict=False)]
        place = same.index(False) if False in same else min(len(expected), len(found))
        first, second = (row[place] if place < len(row) else end for row in (expected, found))
        logits = model(torch.tensor([ids + expected[:place]])).logits[0, -1]
        differing.append(Difference(number, place, first, second, float(logits[first] - logits[second])))
    return differing
