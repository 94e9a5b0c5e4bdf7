"""Runs torchtune's chat dataset and its Qwen2 tokenizer on rows. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torchtune.data import OpenAIToMessages
from torchtune.datasets import SFTDataset
from torchtune.models.qwen2 import Qwen2Tokenizer


def run(rows_file: str, out: str, job: dict) -> None:
    """Write the ids and labels of every row."""
    special = job["special_tokens"]
    tokenizer = Qwen2Tokenizer(job["vocab"], job["merges"], special_tokens=special, max_seq_len=job["max_length"])
    rows = SFTDataset(source="json", data_files=rows_file, split="train", message_transform=OpenAIToMessages(),
                      model_transform=tokenizer)  # fmt: skip
    with Path(out).open("w", encoding="utf-8") as sink:
        for index in range(len(rows)):
            sample = rows[index]
            labels = [int(label) for label in sample["labels"]]
            sink.write(json.dumps({"row": index, "input_ids": sample["tokens"], "labels": labels}) + "\n")


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(each["rows"], each["out"], each)
