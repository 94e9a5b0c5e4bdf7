"""Runs LitGPT's SFTDataset on rows. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from litgpt.data.base import SFTDataset
from litgpt.prompts import PromptStyle
from litgpt.tokenizer import Tokenizer


def run(rows_file: str, out: str, job: dict) -> None:
    """Write the ids and labels of every row."""
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    styles = {"alpaca": "alpaca", "chatml": "qwen3"}
    data = SFTDataset(
        [record(row) for row in rows],
        Tokenizer(job["tokenizer"]),
        PromptStyle.from_name(styles[job["template"]]),
        max_seq_length=job["max_length"] or -1,
        mask_prompt=job["mask_prompt"],
    )
    with Path(out).open("w", encoding="utf-8") as sink:
        for index in range(len(data)):
            kept = {name: data[index][name].tolist() for name in ("input_ids", "labels")}
            sink.write(json.dumps({"row": index, **kept}) + "\n")


def record(row: dict) -> dict:
    """A row of one question and one answer as LitGPT reads it."""
    *system, question, answer = row["messages"]
    fields = {"instruction": question["content"], "output": answer["content"]}
    if row.get("input"):
        fields["input"] = row["input"]
    return {**fields, **({"sys_prompt": system[0]["content"]} if system else {})}


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(each["rows"], each["out"], each)
