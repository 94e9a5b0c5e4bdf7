"""Runs Axolotl's chat_template strategy and its length filter on rows. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["AXOLOTL_DO_NOT_TRACK"] = os.environ["DO_NOT_TRACK"] = "1"

from axolotl.prompt_strategies.chat_template import load
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from transformers import AutoTokenizer


def run(rows_file: str, out: str, job: dict) -> None:
    """Write the ids and labels of every row; a row that Axolotl drops is missing."""
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    if job["chat_template"]:
        tokenizer.chat_template = job["chat_template"]
    limit = job["max_length"] or 10**6
    config = DictDefault({"sequence_len": limit, "chat_template": "tokenizer_default", "train_on_inputs": False,
                          "min_sample_len": 2, "dataset_num_proc": 1})  # fmt: skip
    source = {"field_messages": "messages", **job["dataset"]}
    strategy = load(tokenizer, config, ds_cfg=source)
    encoded = [
        {"row": index, **strategy.tokenize_prompt({"messages": row["messages"]})} for index, row in enumerate(rows)
    ]
    kept = handle_long_seq_in_dataset(Dataset.from_list(encoded), limit, config)
    with Path(out).open("w", encoding="utf-8") as sink:
        for row in kept:
            if any(label != -100 for label in row["labels"]):  # its trainer drops rows without labels
                sink.write(json.dumps({name: row[name] for name in ("row", "input_ids", "labels")}) + "\n")


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(each["rows"], each["out"], each)
