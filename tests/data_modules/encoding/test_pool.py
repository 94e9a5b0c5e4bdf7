from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import pool as encoding_pool
from data_modules.encoding.cache import encode_sources
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.pool import ChunkEncoder, EncodingPool, num_processes
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.splits import Sources
from data_modules.rendering.templates import resolve_template
from tests.conftest import alpaca_rows, chat_rows
from tests.waiting import wait_until

Write = Callable[..., str]


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, resolve_template("chatml", tokenizer), 60)


@pytest.fixture
def strict(tokenizer_folder: str) -> Encoder:
    """An encoder whose chat template rejects system turns."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return Encoder(tokenizer, resolve_template("tokenizer", tokenizer), 200)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_pool, "_CHUNK_CONVERSATIONS", 7)
    monkeypatch.setattr(encoding_pool, "_CHUNKS_ALONE", 1)


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def both_ways(sources: Sources, encoder: Encoder, folder: Path) -> list[dict[str, bytes]]:
    """All bytes written by one process, and by two."""
    folders = [encode_sources(sources, encoder, folder / str(n), processes=n) for n in (1, 2)]
    return [written(each) for each in folders]


def conversations(count: int) -> Iterator[Conversation]:
    for n in range(count):
        yield Conversation((Message(Role.USER, f"Say {n}."), Message(Role.ASSISTANT, str(n))), f"x:{n}")


def test_two_processes_write_the_bytes_of_one(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows: list[dict[str, Any]] = [*chat_rows(90), *chat_rows(20), {"conversation": []}, {"conversation": 3}]
    other = write("b.jsonl", [*alpaca_rows(60), {"wrong": 1}])
    sources = Sources(
        {"train": [write("a.jsonl", rows), other], "test": [write("c.jsonl", alpaca_rows(9))]},
        {"val": 0.2},
        on_invalid="drop",
        samples="answer",
    )
    one, two = both_ways(sources, replace(encoder, over_long="split"), tmp_path)
    assert sorted(one) == ["digests.json", "ledgers.json", "test.arrow", "train.arrow", "val.arrow"]
    assert one == two


def test_ledger_lists_unreadable_before_rejected_records_for_any_number_of_processes(
    tmp_path: Path, write: Write, strict: Encoder
) -> None:
    rows: list[dict[str, Any]] = [{"system": "s" * (n % 5 == 0), **row} for n, row in enumerate(alpaca_rows(60))]
    rows[40] = {"instruction": 3}
    sources = Sources({"train": [write("a.jsonl", rows)]}, on_invalid="drop")
    one, two = both_ways(sources, strict, tmp_path)
    assert one == two
    ledger = json.loads(one["ledgers.json"])["train"]
    places = [int(message.split(".jsonl:")[1].split(":")[0]) for message in ledger["invalid"]["first"]]
    assert places == [41, 1, 6, 11, 16, 21, 26, 31, 36, 46, 51, 56]
    assert (ledger["records_read"], ledger["invalid"]["count"], ledger["examples"]) == (60, 12, 48)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("refused", "unreadable", "first"), [(20, 22, 20), (24, 22, 22), (20, 55, 20), (3, 5, 3), (5, 3, 3), (29, 58, 29)]
)
def test_first_error_in_file_order_is_raised_even_if_reading_is_ahead(
    tmp_path: Path, write: Write, strict: Encoder, processes: int, refused: int, unreadable: int, first: int
) -> None:
    rows: list[dict[str, Any]] = list(alpaca_rows(60))
    rows[refused - 1] = {"system": "s", **rows[refused - 1]}
    rows[unreadable - 1] = {"instruction": 3}
    sources = Sources({"train": [write("a.jsonl", rows)]})
    with pytest.raises(ValueError, match=rf"a\.jsonl:{first}: "):
        encode_sources(sources, strict, tmp_path / "cache", processes=processes)
    assert not list((tmp_path / "cache").iterdir())


def test_over_long_conversation_is_named_by_another_process(tmp_path: Path, write: Write, encoder: Encoder) -> None:
    rows = [*alpaca_rows(20), {"instruction": "x" * 99, "output": "y"}, *alpaca_rows(20)]
    sources = Sources({"train": [write("a.jsonl", rows)]}, on_invalid="drop")
    with pytest.raises(ValueError, match=r"a\.jsonl:21: \d+ tokens; expected at most 60"):
        encode_sources(sources, replace(encoder, over_long="error"), tmp_path, processes=2)


def test_small_data_starts_no_process(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(encoding_pool, "_start", never)
    with EncodingPool(ChunkEncoder(encoder), 2) as pool:
        assert [chunk.num_conversations for chunk in pool.run(conversations(7))] == [7]
    with EncodingPool(ChunkEncoder(encoder), 1) as pool:
        assert [chunk.num_conversations for chunk in pool.run(conversations(17))] == [7, 7, 3]


def test_long_documents_make_short_chunks(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_pool, "_CHUNK_CHARACTERS", 100)
    texts = [Conversation((Message(Role.TEXT, "x" * size),), "x:1") for size in (40, 70, 300, 1, 1)]
    with EncodingPool(ChunkEncoder(encoder), 1) as pool:
        assert [chunk.num_conversations for chunk in pool.run(texts)] == [2, 1, 2]


def test_reading_waits_for_encoding(encoder: Encoder) -> None:
    read = 0

    def counted() -> Iterator[Conversation]:
        nonlocal read
        for conversation in conversations(700):
            read += 1
            yield conversation

    with EncodingPool(ChunkEncoder(encoder), 2) as pool:
        for done, _ in enumerate(pool.run(counted()), start=1):
            assert read <= 7 * (done + 2 * 2)
    assert read == 700


def test_dead_process_raises_an_error_with_advice(encoder: Encoder) -> None:
    with EncodingPool(ChunkEncoder(encoder), 2) as pool:
        chunks = pool.run(conversations(7000))
        assert [next(chunks).num_conversations for _ in range(3)] == [7, 7, 7]
        assert pool._executor is not None
        next(iter(pool._executor._processes.values())).kill()
        with pytest.raises(ChildProcessError, match="encoding_processes 1"):
            list(chunks)


ENDLESS = """
import sys
from itertools import repeat
from transformers import AutoTokenizer
from data_modules.records.conversation import Conversation, Role, Message
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.pool import ChunkEncoder, EncodingPool
from data_modules.rendering.templates import resolve_template

if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    encode = ChunkEncoder(Encoder(tokenizer, resolve_template("chatml", tokenizer), 60))
    with EncodingPool(encode, 2) as pool:
        for number, _ in enumerate(pool.run(repeat(Conversation((Message(Role.TEXT, "x"),), "x:1")))):
            if number == 10:
                print(*pool._executor._processes, flush=True)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, tokenizer_folder: str, signal_number: signal.Signals
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, str(script), tokenizer_folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        children = [int(number) for number in process.stdout.readline().split()]
        if signal_number is signal.SIGINT:
            os.killpg(process.pid, signal_number)  # as a terminal sends Ctrl-C
        else:
            process.kill()
        _, said = process.communicate()
    assert children
    assert ("Traceback" in said) == (signal_number is signal.SIGINT)
    wait_until(lambda: not any(is_running(child) for child in children))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text() if Path("/proc").exists() else True


def test_number_of_processes_is_the_number_of_usable_cores_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert num_processes(None) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert num_processes(None) == 16
    assert num_processes(40) == 40
    with pytest.raises(ValueError, match=r"--data\.encoding_processes 0: expected at least 1"):
        num_processes(0)
