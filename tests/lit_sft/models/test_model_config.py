"""Settings of a model with random weights: errors are raised before any data is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_sft.models.model_config import check_buildable, config_from
from tests.conftest import MODELS

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"n_head": 3}, r": n_head 3 does not divide n_embd 32; change one of the two\.$"),
    ("gpt2", {"n_head": "two"}, r"\.n_head: expected a whole number, got 'two'\.$"),
    ("gpt2", {"n_layer": 1.5}, r"\.n_layer: expected a whole number, got 1\.5\.$"),
    ("gpt2", {"n_layer": -1}, r"\.n_layer -1: expected at least 1\.$"),
    ("gpt2", {"n_embd": 0}, r"\.n_embd 0: expected at least 1\.$"),
    ("gpt2", {"n_heads": 2}, r": gpt2 has no setting n_heads; did you mean n_head\?$"),
    ("gpt2", {"colour": 2}, r": gpt2 has no setting colour; expected one of .*n_embd, n_head"),
    ("gpt2", {"activation_function": "gelu_nw"}, r"\.activation_function: .*no activation gelu_nw; did you mean gelu"),
    ("gpt2", {"layer_norm_epsilon": "tiny"}, r"\.layer_norm_epsilon: expected a number, got 'tiny'\.$"),
    ("qwen2", {"num_attention_heads": 3}, r": num_key_value_heads 2 does not divide num_attention_heads 3; change"),
    ("qwen2", {"num_hidden_layers": 0}, r"\.num_hidden_layers 0: expected at least 1\.$"),
    ("llama", {"num_attention_heads": 5}, r": The hidden size \(32\) is not a multiple of the number of "),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_impossible_setting_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^--model\.backbone\.config{message}"):
        check_buildable(config_from(MODELS[name] | change))


@pytest.mark.parametrize("name", MODELS)
def test_valid_config_is_unchanged_and_uses_no_randomness(name: str) -> None:
    config = config_from(MODELS[name])
    before, state = config.to_dict(), torch.get_rng_state()
    check_buildable(config)
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)
