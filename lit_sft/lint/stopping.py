"""Rules about settings: what the model stops on, and what pads."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from data_modules.sft_data_module import SFTDataModule
from lit_sft.lint.findings import Findings


def check_stopping(data: SFTDataModule, end: int, findings: Findings, *, is_random: bool) -> None:
    """Check that the model stops on the template's end token, and whether padding looks like it.

    Args:
        data: The data module; needs a tokenizer.
        end: The token that ends answers.
        findings: Where to report.
        is_random: Whether the model has random weights, so that it stops on whatever is trained.
    """
    tokenizer = data.tokenizer
    shown = tokenizer.convert_ids_to_tokens(end)
    if not is_random:
        stops = _stops(tokenizer)
        if end not in stops:
            known = ", ".join(f"{tokenizer.convert_ids_to_tokens(index)!r}" for index in sorted(stops)) or "nothing"
            findings.add(
                "end-token-mismatch",
                "",
                f"template {data.encoder.template.name} ends answers with {shown!r}; the model stops on {known}",
            )
    if tokenizer.pad_token_id == end:
        findings.add("pad-is-end", "", f"both are {shown!r}")


def _stops(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """What the model stops on: the end tokens of its generation config, else its tokenizer's."""
    folder = Path(tokenizer.name_or_path)
    own = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    if not (folder / "generation_config.json").is_file():
        return own
    try:
        found = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except Exception:  # a config that transformers cannot read says nothing about the end
        return own
    return set(found) if isinstance(found, list) else own if found is None else {int(found)}
