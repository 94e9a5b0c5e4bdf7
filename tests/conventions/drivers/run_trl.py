"""Runs TRL's SFTTrainer on rows up to its labels. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trl
from datasets import Dataset
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
from trl import SFTConfig, SFTTrainer


def run(rows_file: str, out: str, job: dict) -> None:
    """Write the ids and labels of every row; a row that TRL drops is missing."""
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    if job["chat_template"].endswith(".jinja"):  # one of TRL's own
        tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / job["chat_template"]).read_text()
        Path(out).with_suffix(".jinja").write_text(tokenizer.chat_template)
    elif job["chat_template"]:
        tokenizer.chat_template = job["chat_template"]
    settings = SFTConfig(
        output_dir=str(Path(out).parent / "trl"),
        max_length=job["max_length"],
        assistant_only_loss=job["mode"] == "assistant_only",
        use_cpu=True,
        report_to=[],
        shuffle_dataset=False,
    )
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=len(tokenizer)))
    records = [{**record(row["messages"], job["mode"]), "row": index} for index, row in enumerate(rows)]
    trainer = SFTTrainer(model, settings, train_dataset=Dataset.from_list(records), processing_class=tokenizer)
    # the trainer drops the column with the row's number only when it makes batches
    with Path(out).open("w", encoding="utf-8") as sink:
        for item in trainer.train_dataset:
            batch = trainer.data_collator([{name: item[name] for name in ("input_ids", "labels")}])
            kept = {name: batch[name][0].tolist() for name in ("input_ids", "labels")}
            sink.write(json.dumps({"row": item["row"], **kept}) + "\n")


def record(messages: list[dict], mode: str) -> dict:
    """A row as the dataset of this mode has it."""
    if mode == "prompt_completion":
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    return {"messages": messages}


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(each["rows"], each["out"], each)
