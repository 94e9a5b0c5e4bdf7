"""`lit-sft init DATA [MODEL]`: writes a config for your data, a model and this machine.

It finds out the format of the records, how long they are in the model's tokens and how much memory is free, and writes
a config with a comment on every choice. Without a model, the config trains a small one with random weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.data_files import SUFFIXES
from lit_sft.console import print_line, quieten
from lit_sft.files import write_text
from lit_sft.settings.arguments import Arguments
from lit_sft.shipped import ROOT

SMALL_MODEL = {"model_type": "gpt2", "n_layer": 2, "n_embd": 160, "n_head": 4}
_TOKENIZER = "examples/tokenizer"
_CONTEXT_OF_SMALL = 1024


def main(argv: list[str]) -> None:
    """Write a config.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the data or the model cannot be read, or the config exists.
    """
    options = _parser().parse_args(argv[1:])
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise UserError(f"--output {output}: exists; name another file, or add `--overwrite`.")
    if options.model and options.model.lower().endswith(SUFFIXES):
        raise UserError(f"{options.model}: expected a model after the data; put several data files into one folder.")
    quieten("init")
    text, found = propose_config(options.data, options.model)
    write_text(output, text)
    for line in found:
        print_line(line)
    print_line(f"written {output}: a comment explains every choice")
    for label, command in zip(("next", "then", "then"), ("preview", "fit", "chat"), strict=True):
        given = "" if command == "chat" else f" --config {output}"
        print_line(f"{label:8}lit-sft {command}{given}")


def propose_config(data: str, model: str | None) -> tuple[str, list[str]]:
    """A config for data, a model and this machine.

    Args:
        data: File, folder or hub name of records.
        model: Name or folder of a model. None: a small one with random weights.

    Returns:
        The config's text, and lines that say what was found.

    Raises:
        UserError: If the data or the model cannot be read, or the config would be refused.
    """
    # imported after parsing, so that errors in options are instant
    from data_modules.encoding.tokenizers import load_tokenizer, num_ids
    from data_modules.rendering.masking import MASKS, MaskName
    from data_modules.rendering.templates import TemplateName, resolve_template
    from lit_sft.init.config_text import config_text
    from lit_sft.init.findings import findings
    from lit_sft.init.machine import look_around
    from lit_sft.init.model_size import size_of
    from lit_sft.init.proposal import length_limit, propose
    from lit_sft.init.survey import encoded, lengths, survey
    from lit_sft.init.trial import is_possible, try_steps
    from lit_sft.models.adapters import LoraSettings
    from lit_sft.models.backbone import BackboneSettings, load_config

    found = survey(data)
    if found.is_preference and not model:
        raise UserError(
            f"{data}: preference pairs, which teach a model that already answers to answer better. Name it: `lit-sft "
            f"init {data} MODEL`; see docs/preferences.md."
        )
    backbone: dict[str, Any] = {"pretrained": model} if model else {"config": SMALL_MODEL, "tokenizer": _tokenizer()}
    tokenizer = load_tokenizer(model or backbone["tokenizer"])
    template: TemplateName = "tokenizer" if tokenizer.chat_template else "plain" if model else "chatml"
    mask: MaskName = "firefly_multi_turn" if found.has_several_answers else "output_only"
    mask = "whole_sequence" if found.is_text else mask
    examples = encoded(found, tokenizer, resolve_template(template, tokenizer))
    measured = lengths(examples, mask)
    if not model:
        limit = 256 if found.is_text else length_limit(measured, _CONTEXT_OF_SMALL)
        backbone["config"] = {**SMALL_MODEL, "n_positions": max(256, limit)}
    config = load_config(BackboneSettings(pretrained=model, config=backbone.get("config")))
    if not model:
        config.vocab_size = num_ids(tokenizer)
    context = getattr(config, "max_position_embeddings", None) or _CONTEXT_OF_SMALL
    lora = LoraSettings(rank=8, target_modules="all-linear")
    size = size_of(config, lora)
    machine = look_around(size.width, size.inner)
    proposal = propose(found, measured, size, machine, context=context, is_pretrained=bool(model))
    text = config_text(data, backbone, found, measured, proposal, machine, template=template, mask=mask)
    _check(text)
    trial = None
    if is_possible(size.weights, proposal, machine):
        trial = try_steps(examples, config, lora, proposal, machine, MASKS[mask])
    return text, findings(found, measured, proposal, size.weights, machine, trial)


def _tokenizer() -> str:
    """The bundled tokenizer: below this folder if it is there, else where the project is installed."""
    return _TOKENIZER if Path(_TOKENIZER).is_dir() else str(ROOT / _TOKENIZER)


def _check(text: str) -> None:
    """Read the config as `fit` will."""
    from lit_sft.settings.reading import read_settings

    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        read_settings(file.name)


def _parser() -> Arguments:
    parser = Arguments("init", __doc__, example="rows.csv HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("data", help="file or folder of your records, or the name of a data set on the hub")
    parser.add_argument("model", nargs="?", help="name or folder of the model to fine-tune")
    parser.add_argument("--output", default="config.yaml", help="file to write (config.yaml)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser
