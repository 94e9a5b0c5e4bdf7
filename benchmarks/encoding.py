#!/usr/bin/env python3
"""Time the encoding of synthetic conversations, in one process and in several.

    python benchmarks/encoding.py [--tokenizer FOLDER] [--kind alpaca] [--rows 100000 1000000] [--processes 1 2]
    python benchmarks/encoding.py --records FILE [--template alpaca] [--tokenizer FOLDER]

Rows are chats of one to three exchanges or Alpaca-like instructions (`--kind`), with words from a seeded generator, or
your own records.
Each measurement runs in a separate Python process with an empty cache. It prints rows per second including start-up,
the CPU time of all processes, and (on Linux) the peak resident memory of the reading process and of the largest
encoding process; neither may grow with the number of rows. Digests check that the output does not depend on the number
of processes. The last columns are rows per second of processor time: ours, from the file to the encoded data, and that
of the tokenizer alone, which encodes each rendered conversation as one string. Writes a table and a JSON file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_modules.sft_data_module import SFTDataModule

sys.path.insert(0, str(Path(__file__).parent.parent))

WORDS = [first + middle + last for first in ("ba", "cor", "del") for middle in ("", "im", "o") for last in "aeiouy"]


def main() -> None:
    """Measure every size with every number of processes, one at a time."""
    options = arguments()
    if options.only:
        print(json.dumps(measure(options, Path(options.only))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_records(options) if options.records else measure_sizes(options, Path(folder))
    print_table(rows)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps({"settings": vars(options), "rows": rows}, indent=1), encoding="utf-8")


def measure_sizes(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure generated files of every size."""
    rows = []
    for size in options.rows:
        path = write_rows(folder / f"{options.kind}_{size}.jsonl", options.kind, size)
        rows += measure_file(options, path)
        path.unlink()
    return rows


def measure_records(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each of your own files."""
    return [row for path in options.records for row in measure_file(options, Path(path))]


def measure_file(options: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """Measure one file with every number of processes."""
    rows = [measure_alone(options, path, processes) for processes in options.processes]
    if len({row["digest"] for row in rows}) != 1:
        sys.exit(f"{path}: the encoded data depends on the number of processes")
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="examples/tokenizer")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--records", nargs="+", help="your own files instead of generated rows")
    parser.add_argument("--kind", choices=("chat", "alpaca"), default="chat")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--val-fraction", type=float, default=0.05)
    parser.add_argument("--output", default="runs/encoding.json")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_alone(options: argparse.Namespace, path: Path, processes: int) -> dict[str, Any]:
    """A measurement in a separate Python process, so that peak memory is its own."""
    settings = ["--tokenizer", options.tokenizer, "--template", options.template]
    settings += ["--val-fraction", str(options.val_fraction), "--processes", str(processes)]
    command = [sys.executable, __file__, *settings, "--only", str(path)]
    row: dict[str, Any] = json.loads(subprocess.check_output(command).splitlines()[-1])
    return {"file": path.name, "processes": processes, **row}


def measure(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Encode a file into an empty cache."""
    # imported here: every encoding process imports this file too, and would load torch for nothing
    from data_modules.encoding.cache import encode_sources, load_ledgers
    from data_modules.sft_data_module import SFTDataModule

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # all figures are those of one core
    data = SFTDataModule(
        str(path),
        tokenizer=options.tokenizer,
        template=options.template,
        val_fraction=options.val_fraction,
        test_fraction=0.0,
    )
    encoder = data.encoder
    before, start, busy = peak_megabytes("self"), time.perf_counter(), sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as cache, watched_children() as peaks:
        folder = encode_sources(data.sources, encoder, Path(cache), processes=options.processes[0])
        seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - busy
        size = sum(ledger["records_read"] for ledger in load_ledgers(folder).values())
        return {
            "rows": size,
            "seconds": seconds,
            "rows_per_second": size / seconds,
            "cpu_seconds": cpu_seconds,
            "rows_per_cpu_second": size / cpu_seconds,
            "tokenizer_rows_per_cpu_second": tokenizer_speed(data),
            "parent_megabytes_before": before,
            "parent_megabytes": peak_megabytes("self"),
            "child_megabytes": max(peaks.values(), default=0),
            "digest": digest(folder),
        }


def tokenizer_speed(data: SFTDataModule) -> float:
    """Rows per second of processor time of the tokenizer alone: the best of five passes over at most 2,000 rows."""
    from data_modules.records.splits import read_splits

    rendered = (data.encoder.template.render(conversation) for _, conversation in read_splits(data.sources))
    texts = ["".join(segment.text for segment in segments) for segments in islice(rendered, 2000)]
    backend, seconds = data.tokenizer.backend_tokenizer, []
    for _ in range(5):
        start = time.process_time()
        for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
            encoding.ids  # noqa: B018 - the tokenizer makes the list only now
        seconds.append(time.process_time() - start)
    return len(texts) / min(seconds)


@contextlib.contextmanager
def watched_children() -> Iterator[dict[str, int]]:
    """Peak memory of every child process in megabytes, sampled twice a second.

    The system's own peak for ended children is useless: it includes the parent's memory at the time of the fork.
    """
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            for children in Path("/proc/self/task").glob("*/children"):
                with contextlib.suppress(OSError):  # it has ended in the meantime
                    peaks.update({child: peak_megabytes(child) for child in children.read_text().split()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def peak_megabytes(process: str) -> int:
    """Peak resident memory of a process; 0 if unknown."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def digest(folder: Path) -> str:
    """A digest of all files written."""
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def write_rows(path: Path, kind: str, size: int) -> Path:
    """Write rows as JSON lines, one at a time."""
    make = {"chat": chats, "alpaca": instructions}[kind]
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in make(size, random.Random(0)))
    return path


def chats(size: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Short chats of one to three exchanges."""
    for _ in range(size):
        exchanges = draw.randint(1, 3)
        turns = [{"human": text(draw, 4, 20), "assistant": text(draw, 4, 40)} for _ in range(exchanges)]
        yield {"conversation": turns}


def instructions(size: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Rows as long as Alpaca's: an instruction, an input in two of five rows, an answer of up to two hundred words."""
    for _ in range(size):
        context = text(draw, 5, 60) if draw.random() < 0.4 else ""
        yield {"instruction": text(draw, 6, 25), "input": context, "output": text(draw, 5, 200)}


def text(draw: random.Random, least: int, most: int) -> str:
    """A sentence of these words, capitalised, with a full stop."""
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most))).capitalize() + "."


def print_table(rows: list[dict[str, Any]]) -> None:
    """The metrics as a Markdown table."""
    print("| rows | processes | seconds | rows/s | parent, before and peak | largest child | rows/CPU s | tokenizer |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['rows']:,} | {row['processes']} | {row['seconds']:.1f} | {row['rows_per_second']:,.0f} | "
            f"{row['parent_megabytes_before']:,} to {row['parent_megabytes']:,} MB | "
            f"{row['child_megabytes']:,} MB | {row['rows_per_cpu_second']:,.0f} | "
            f"{row['tokenizer_rows_per_cpu_second']:,.0f} |"
        )


if __name__ == "__main__":
    main()
