"""Damaged, odd and hostile files end in success or in one message that names the place; every lost row is counted."""

from __future__ import annotations

import codecs
import csv
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_modules.sft_data_module import SFTDataModule
from lit_sft.__main__ import main
from lit_sft.runs.folders import Run, find_resumable
from tests.conftest import byte_tokenizer, chat_rows

TOKENIZER = byte_tokenizer()
FEW = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=150)
MANY = settings(FEW, max_examples=2000)

ODD_TEXTS = [
    "", " ", "\x00", "\ud800", "\udfff tail", "\ufeff", "a\r\nb", "\u2028", "<|im_end|>", "<|im_start|>user\n",
    "😀" * 50, "e\u0301" * 20, "\u202eright to left", "x" * 20_000, "x, " * 50_000, "<script>alert(1)</script>",
    "%s{0}{{", "nan", "\x1b[31mred",
]  # fmt: skip
ODD_VALUES: list[Any] = [
    *ODD_TEXTS, None, True, 0, -1.5, 10**30, [], {}, [[]], [None], {"role": None}, [{"role": "user"}], ["a", "b"],
    [{"human": "h", "assistant": 3}], [{"from": "human", "value": []}], float("nan"),
]  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"instruction": "Say hello.", "input": "", "output": "Hello."},
    {"prompt": "One", "completion": " two"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    chat_rows(3)[2],
    {"id": "1", "data": ["Hi", "Hello"]},
    {"text": "plain words"},
]

text = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20))
value = st.one_of(st.sampled_from(ODD_VALUES), text)


@st.composite
def row(draw: st.DrawFn) -> Any:
    """A row of one format with something wrong in it, somewhere."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(value)
    fields: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(ROWS))))
    name = draw(st.sampled_from(sorted(fields)))
    if kind < 4:
        fields[name] = draw(value)
    elif kind == 4:
        del fields[name]
    elif kind == 5:
        fields[draw(text)] = draw(value)
    elif kind < 8 and isinstance(fields[name], list):
        place = draw(st.integers(0, len(fields[name]) - 1))
        turn = fields[name][place]
        if isinstance(turn, dict):
            turn[draw(st.sampled_from([*turn, "extra"]))] = draw(value)
        else:
            fields[name][place] = draw(value)
    return fields


@st.composite
def file(draw: st.DrawFn) -> tuple[str, bytes]:
    """A data file: a few rows, written in some way, and perhaps damaged."""
    rows = draw(st.lists(st.one_of(row(), st.sampled_from(ROWS)), min_size=1, max_size=5))
    suffix = draw(st.sampled_from([".jsonl", ".json", ".csv", ".txt", ".parquet"]))
    ending = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r"]))
    if suffix == ".parquet":
        return f"rows{suffix}", draw(damaged(parquet(rows, draw(headers))))
    if suffix == ".csv":
        content = csv_text(rows, draw(headers), ending)
    elif suffix == ".json":
        content = json.dumps(rows, indent=draw(st.sampled_from([None, 1]))) + draw(st.sampled_from(ENDS_OF_LISTS))
    else:
        content = ending.join(json.dumps(fields) for fields in rows)
    if draw(st.integers(0, 19)) == 0:
        return f"rows{suffix}", content.encode("utf-16", "surrogatepass")
    return f"rows{suffix}", draw(damaged(content.encode("utf-8", "surrogatepass")))


ENDS_OF_LISTS = ["", "", "\n", "[]", " junk", "\n[]", ",", "\x00", "]"]
headers = st.sampled_from(
    [
        *[["instruction", "input", "output"]] * 4,
        ["instruction", "output", "output"],
        ["", "instruction", "output"],
        ["text"],
        ["prompt", "completion", "article_id"],
    ]
)


def csv_text(rows: list[Any], header: list[str], ending: str) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=ending)
    writer.writerow(header)
    for fields in rows:
        writer.writerow([*map(str, fields.values())] if isinstance(fields, dict) else [fields])
    return stream.getvalue()


def parquet(rows: list[Any], header: list[str]) -> bytes:
    """Columns of text, and one of dates, some of which Python cannot represent."""
    texts = [[*map(str, fields.values())] if isinstance(fields, dict) else [str(fields)] for fields in rows]
    cells = [
        [line[i].encode("utf-8", "replace").decode() if i < len(line) else None for line in texts] for i in range(3)
    ]
    columns = [pa.array(column, pa.string()) for column in cells[: len(header)]]
    days = pa.array([10**9 if "\x00" in str(line) else 1 for line in texts], pa.int32()).view(pa.date32())
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([*columns, days], names=[*header, "day"]), sink)
    return sink.getvalue()


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes as they are, or with a byte order mark, cut short, or a few bytes of them changed."""
    way = draw(st.integers(0, 9))
    if way == 0:
        return codecs.BOM_UTF8 * draw(st.integers(1, 2)) + raw
    if way == 2:
        return raw[: draw(st.integers(0, len(raw)))]
    if 2 < way < 5 and raw:
        place = draw(st.integers(0, len(raw) - 1))
        return raw[:place] + draw(st.binary(min_size=1, max_size=4)) + raw[place + 1 :]
    return raw


def read(folder: Path, name: str, raw: bytes, **options: Any) -> SFTDataModule | str:
    """The data module of a file, or the message that refuses it."""
    path = folder / name
    path.write_bytes(raw)
    shaping = {"template": "plain", "mask": "whole_sequence", "encoding_processes": 1, "cache_dir": str(folder / "c")}
    data = SFTDataModule(str(path), tokenizer=TOKENIZER, val_fraction=0.0, test_fraction=0.0, **(shaping | options))
    try:
        data.setup("fit")
    except ValueError as error:
        message = str(error)
    else:
        return data
    assert name in message, f"no place in: {message}"
    assert "\n" not in message
    return message


def check(folder: Path, name: str, raw: bytes) -> None:
    strict = read(folder, name, raw)
    lenient = read(folder, name, raw, on_invalid="drop")
    if isinstance(strict, SFTDataModule):
        assert isinstance(lenient, SFTDataModule)
        assert len(lenient.stores["train"]) == len(strict.stores["train"])
    if isinstance(lenient, SFTDataModule):
        ledger = lenient.ledgers["train"]
        lost = ledger["invalid"]["count"] + ledger["dropped"] + ledger["duplicates"]
        assert ledger["records_read"] == ledger["examples"] + lost
        assert len(lenient.stores["train"]) == ledger["examples"]
        assert isinstance(strict, SFTDataModule) or ledger["invalid"]["count"]


@FEW
@given(file())
def test_damaged_files_end_in_success_or_one_located_message(
    tmp_path_factory: Any, given_file: tuple[str, bytes]
) -> None:
    check(tmp_path_factory.mktemp("hostile"), *given_file)


@pytest.mark.slow
@MANY
@given(file())
def test_two_thousand_damaged_files_end_in_success_or_one_located_message(
    tmp_path_factory: Any, given_file: tuple[str, bytes]
) -> None:
    check(tmp_path_factory.mktemp("hostile"), *given_file)


@pytest.mark.parametrize("name", ["two\nlines", "\ud800", "\u202eleft"])
def test_odd_names_of_fields_are_shown_in_ascii(tmp_path: Path, name: str) -> None:
    rows = [{"instruction": "Say hello.", "output": "Hello."}, {"prompt": "One", name: ""}]
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    check(tmp_path, "rows.jsonl", raw)
    found = read(tmp_path, "rows.jsonl", raw)
    assert isinstance(found, str)
    assert ascii(name) in found


def test_a_line_of_ten_megabytes_is_read_and_shortened(tmp_path: Path) -> None:
    raw = json.dumps({"text": "word " * 2_000_000}).encode()
    data = read(tmp_path, "rows.jsonl", raw)
    assert isinstance(data, SFTDataModule)
    assert data.ledgers["train"]["truncated"] == 1


READ_ALONE = """
import resource, sys
from data_modules.records.splits import Sources, read_conversations
from data_modules.encoding.ledger import Ledger
ledger = Ledger("drop")
read = list(read_conversations("train", Sources({"train": [sys.argv[1]]}, on_invalid="drop"), ledger))
print(len(read), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *ledger.invalid)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has different units elsewhere")
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows.parquet"])
def test_only_the_100_MB_record_is_dropped_in_bounded_memory(tmp_path: Path, name: str) -> None:
    path, huge = tmp_path / name, b"word " * 20_000_000
    if name == "rows.parquet":
        pq.write_table(pa.table({"text": ["one", huge.decode(), "two"]}), path)
    else:
        before, middle, after = {
            "rows.jsonl": (b'{"text": "one"}\n{"text": "', b'"}\n', b'{"text": "two"}'),
            "rows.json": (b'[{"text": "one"}, {"text": "', b'"}, ', b'{"text": "two"}]'),
            "rows.csv": (b'text\none\n"', b'"\n', b"two"),
            "rows.txt": (b"one\n", b"\n", b"two"),
        }[name]
        path.write_bytes(before + huge + middle + after)
    # in a separate process, because the system reports the peak memory of a whole process
    found = subprocess.run([sys.executable, "-c", READ_ALONE, str(path)], capture_output=True, text=True, check=True)
    count, kilobytes, message = found.stdout.strip().split(" ", 2)
    assert count == "2"
    assert int(kilobytes) < 2_000_000
    assert re.search(r":2: a line of more|:1 \(record 2\): .* of text|:3: a line of more|row 2: .* of text", message)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"rows\.jsonl:1: nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", r"rows\.jsonl:1: an integer with thousands of digits"),
        (b'{"text": "\\ud800"}', r"rows\.jsonl:1: .*Unicode"),
        (
            b'{"instruction": "a", "output": "b", "output": "c"}',
            r"rows\.jsonl:1: duplicate field 'output'",
        ),
    ],
)
def test_valid_json_unsuitable_for_a_record_is_refused_with_its_line(tmp_path: Path, raw: bytes, message: str) -> None:
    found = read(tmp_path, "rows.jsonl", raw)
    assert isinstance(found, str)
    assert re.search(message, found)


@FEW
@given(st.data())
def test_damaged_checkpoints_are_never_accepted(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("run")
    run = Run(folder)
    run.checkpoints.mkdir()
    run.config.write_text("{}")
    progress = {"fit_loop": {"epoch_loop.batch_progress": {"total": {"ready": 2}}}}
    torch.save(
        {"global_step": 1, "loops": progress, "state_dict": {"w": torch.ones(64)}, "optimizer_states": []},
        run.checkpoints / "best.ckpt",
    )
    raw = bytearray((run.checkpoints / "best.ckpt").read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
    (run.checkpoints / "last.ckpt").write_bytes(bytes(raw))
    _, chosen, _ = find_resumable(str(folder))
    state = torch.load(chosen, weights_only=True)
    assert state["global_step"] == 1
    assert torch.equal(state["state_dict"]["w"], torch.ones(64))


@pytest.mark.filterwarnings("ignore")  # libraries may warn about odd but valid settings
@pytest.mark.parametrize("index", range(60))
def test_damaged_settings_end_in_one_message(
    index: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # all paths are relative, so that random draws do not depend on this machine
    TOKENIZER.save_pretrained("tokenizer")
    Path("rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chat_rows(6)))
    Path("config.yaml").write_text(damaged_config(index))
    status = main(["fit", "--config", "config.yaml"])
    assert status in (0, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("lit_sft ")] == (lines[-1:] if status else [])
    assert not status or len(lines[-1]) < 2000


def damaged_config(index: int) -> str:
    """A config with one wrong setting and, in every third, damaged text."""
    draw = random.Random(index)
    config: dict[str, Any] = {
        "model": {
            "backbone": {
                "config": {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1},
                "tokenizer": "tokenizer",
            }
        },
        "data": {"train": "rows.jsonl", "batch_size": 2, "mask": "output_only"},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "run": {"root": "runs"},
    }
    section = draw.choice(["model", "data", "trainer", "run"])
    target = config[section]["backbone"] if section == "model" else config[section]
    name = draw.choice([*target, "no_such_setting"])
    target[name] = draw.choice([None, -1, 0, "nonsense", [], {}, {"a": 1}, "\x00", 1e300, "../..", "${x}", True])
    content = yaml.safe_dump(config)
    if index % 3 == 0:
        place = draw.randrange(len(content))
        damage = draw.choice(["\t", ":", "- ", "{", "!!python/object:os.system", "&a *a"])
        content = content[:place] + damage + content[place:]
    return content
