"""Runs LLaMA-Factory's converter, template and supervised processor on rows. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

from transformers import AutoTokenizer

# LLaMA-Factory imports it for audio; its wheel on PyPI needs CUDA's libraries
sys.modules["torchaudio"] = types.ModuleType("torchaudio")

from llamafactory.data.converter import AlpacaDatasetConverter, SharegptDatasetConverter  # noqa: E402
from llamafactory.data.parser import DatasetAttr  # noqa: E402
from llamafactory.data.processor import SupervisedDatasetProcessor  # noqa: E402
from llamafactory.data.template import get_template_and_fix_tokenizer  # noqa: E402
from llamafactory.hparams import DataArguments  # noqa: E402


def run(rows_file: str, out: str, job: dict) -> None:
    """Write the ids and labels of every row."""
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    settings = DataArguments(
        template=job["template"],
        cutoff_len=job["max_length"] or 10**6,
        train_on_prompt=job["train_on_prompt"],
        mask_history=job["mask_history"],
    )
    template = get_template_and_fix_tokenizer(tokenizer, settings)
    processor = SupervisedDatasetProcessor(template=template, tokenizer=tokenizer, processor=None, data_args=settings)
    convert = converter(settings, alpaca=job["alpaca"])
    with Path(out).open("w", encoding="utf-8") as sink:
        for index, row in enumerate(rows):
            example = convert(alpaca_row(row) if job["alpaca"] else {"conversations": row["messages"]})
            encoded = processor.preprocess_dataset({name: [value] for name, value in example.items()})
            kept = {name: encoded[name][0] for name in ("input_ids", "labels")}
            sink.write(json.dumps({"row": index, **kept}) + "\n")


def converter(settings: DataArguments, *, alpaca: bool):
    """LLaMA-Factory's own reader of rows."""
    source = DatasetAttr("file", dataset_name="rows")
    if alpaca:
        source.prompt, source.query, source.response, source.system = "instruction", "input", "output", "system"
        return AlpacaDatasetConverter(source, settings)
    source.role_tag, source.content_tag = "role", "content"
    source.user_tag, source.assistant_tag, source.system_tag = "user", "assistant", "system"
    return SharegptDatasetConverter(source, settings)


def alpaca_row(row: dict) -> dict:
    """A row of one question and one answer in Alpaca's format."""
    *system, question, answer = row["messages"]
    fields = {"instruction": question["content"], "input": row.get("input", ""), "output": answer["content"]}
    return {**fields, "system": system[0]["content"] if system else ""}


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(each["rows"], each["out"], each)
