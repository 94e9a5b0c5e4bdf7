"""From articles to a model that was fine-tuned on pairs made from them, on two CPU cores: `make synthesis`.

    python examples/synthesis.py

Writes 100 articles about boats, makes 500 pairs from them with a stand-in for a language model, checks that no article
is in two splits, fine-tunes a small GPT-2 on the pairs, and tests it on those of other articles. Run it from the top
folder of the repository. Each step is a public command, which is printed. To use a server instead of the stand-in:

    python examples/synthesis.py --endpoint http://127.0.0.1:8080/v1 --model my-model
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lit_sft is beside this folder

from boats import articles
from stand_in_model import started

from data_modules.records.splits import Sources, held_out_fractions, read_splits

SHARE = 0.1
"""Share of the articles in val, and in test."""


def lit_sft(*arguments: str) -> None:
    print(f"\n$ {' '.join(['python -m lit_sft', *arguments])}", flush=True)
    status = subprocess.run([sys.executable, "-m", "lit_sft", *arguments], check=False).returncode
    if status:
        raise SystemExit(status)


def write_articles(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "articles.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in articles()), encoding="utf-8")
    return path


def synthesize(folder: Path, endpoint: str, model: str) -> Path:
    """Make the pairs; a stand-in for a model serves them if there is no endpoint."""
    server = None if endpoint else started()
    place = endpoint or f"http://127.0.0.1:{server.server_port}/v1"
    config = "configs/synthesis/pairs.yaml"
    output, source = str(folder / "pairs"), str(write_articles(folder))
    lit_sft(
        "synthesize", "--config", config, "--output", output, "--articles", source,
        "--model.endpoint", place, "--model.name", model,
    )  # fmt: skip
    if server is not None:
        server.shutdown()
    return folder / "pairs" / "pairs.jsonl"


def check_splits(pairs: Path) -> None:
    """Split the pairs as `fit` does, and check that no article is in two splits."""
    sources = Sources({"train": [str(pairs)]}, fractions=held_out_fractions(SHARE, SHARE))
    split_of: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for split, conversation in read_splits(sources):
        counts[split] += 1
        article = str(conversation.group)
        if split_of.setdefault(article, split) != split:
            raise SystemExit(f"{article} is in {split} and in {split_of[article]}")
    print(f"\n{sum(counts.values())} pairs of {len(split_of)} articles, none of them in two splits:")
    for split, count in counts.items():
        print(f"  {split}: {count} pairs of {list(split_of.values()).count(split)} articles")


def train(folder: Path, pairs: Path, epochs: str) -> None:
    run = ("--run.root", str(folder / "runs"), "--run.name", "boats")
    shares = ("--data.val_fraction", str(SHARE), "--data.test_fraction", str(SHARE))
    data = ("--data.train", str(pairs), "--data.val", "null", "--data.test", "null", *shares)
    steps = ("--trainer.max_epochs", epochs, "--trainer.callbacks", "[]")
    lit_sft("fit", "--config", "configs/quickstart.yaml", *run, *data, *steps)
    lit_sft("test", "--run.root", str(folder / "runs"))


def main() -> None:
    parser = argparse.ArgumentParser(description="From articles to a model fine-tuned on pairs made from them.")
    parser.add_argument("--folder", type=Path, default=Path("runs/synthesis"), help="where to write")
    parser.add_argument("--endpoint", default="", help="an OpenAI-compatible server; default: a stand-in for a model")
    parser.add_argument("--model", default="stand-in", help="the model's name at the endpoint")
    parser.add_argument("--epochs", default="12", help="epochs of fine-tuning")
    options = parser.parse_args()
    if not Path("configs/quickstart.yaml").is_file():
        raise SystemExit(f"{Path.cwd()}: no configs/ here; run this from the top folder of the repository.")
    pairs = synthesize(options.folder, options.endpoint, options.model)
    check_splits(pairs)
    train(options.folder, pairs, options.epochs)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    main()
