from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.errors import UserError
from data_modules.records.readers import read_records, source_fingerprint


def raising(message: str) -> None:
    raise ValueError(message)


def origins(source: str) -> list[tuple[dict[str, object], str]]:
    return [(record.fields, record.origin.removeprefix(source)) for record in read_records(source, reject=raising)]


def test_json_records_keep_the_line_they_start_on(write: Callable[..., str]) -> None:
    path = write("a.json", '[\n{"x": 1},\n\n {"x":\n 2}, {"x": 3}\n]\n')
    assert origins(path) == [({"x": 1}, ":2"), ({"x": 2}, ":4"), ({"x": 3}, ":5")]
    path = write("b.json", '[{"x": 1}, {"x": 2}]')
    assert origins(path) == [({"x": 1}, ":1"), ({"x": 2}, ":1 (record 2)")]


def test_jsonl_skips_blank_lines_and_a_byte_order_mark(write: Callable[..., str]) -> None:
    path = write("a.jsonl", b'\xef\xbb\xbf{"x": 1}\r\n\r\n{"x": "\xe2\x80\xa8"}\n')
    assert origins(path) == [({"x": 1}, ":1"), ({"x": "\u2028"}, ":3")]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize(
    ("encoding", "mark", "shown"),
    [
        ("utf-16-le", b"\xff\xfe", "UTF-16 (it begins with the byte order mark FF FE)"),
        ("utf-16-be", b"\xfe\xff", "UTF-16 (it begins with the byte order mark FE FF)"),
        ("utf-32-le", b"\xff\xfe\0\0", "UTF-32 (it begins with the byte order mark FF FE 00 00)"),
    ],
)
def test_files_in_utf_16_are_refused_as_a_whole(
    write: Callable[..., str], name: str, encoding: str, mark: bytes, shown: str
) -> None:
    path = write(name, mark + '[{"text": "x"}]\n'.encode(encoding))
    with pytest.raises(UserError) as error:
        list(read_records(path, reject=raising))
    target = shown.partition(" ")[0]
    assert str(error.value) == (
        f"{path}: {shown}; expected UTF-8. Convert it: `iconv -f {target} -t UTF-8 OLD > NEW`, or save it as UTF-8 in "
        "an editor."
    )


def test_csv_counts_lines_inside_quoted_fields(write: Callable[..., str]) -> None:
    path = write("a.csv", 'instruction,output\n"two\nlines",b\nc,d\n')
    assert origins(path) == [
        ({"instruction": "two\nlines", "output": "b"}, ":2"),
        ({"instruction": "c", "output": "d"}, ":4"),
    ]


def test_parquet_and_txt(tmp_path: Path, write: Callable[..., str]) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    assert origins(str(tmp_path / "a.parquet")) == [({"text": "a"}, ":row 1"), ({"text": "b"}, ":row 2")]
    assert origins(write("a.txt", "one\n\ntwo\n")) == [({"text": "one"}, ":1"), ({"text": "two"}, ":3")]


def test_folder_reads_its_data_files_in_order(tmp_path: Path, write: Callable[..., str]) -> None:
    write("b.jsonl", [{"x": 2}])
    write("a.json", [{"x": 1}])
    write("notes.md", "no data")
    assert [fields["x"] for fields, _ in origins(str(tmp_path))] == [1, 2]


def test_hub_dataset_is_read_by_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the library also takes a folder by name, so the real code runs without a hub
    (tmp_path / "someone" / "rows").mkdir(parents=True)
    (tmp_path / "someone" / "rows" / "train.jsonl").write_text(json.dumps({"text": "hello"}) + "\n")
    import datasets

    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: real(str(tmp_path / name), split=split, cache_dir=str(tmp_path))
    )
    assert origins("someone/rows") == [({"text": "hello"}, ":1")]
    assert origins("someone/rows[train]") == [({"text": "hello"}, ":1")]
    with pytest.raises(ValueError, match=r"someone/rows: no such file or folder, and no dataset"):
        origins("someone/rows[test]")
    assert source_fingerprint("someone/rows") == source_fingerprint("someone/rows")


def test_row_of_a_hub_dataset_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows(*_: object, **__: object) -> Iterator[dict[str, str]]:
        yield {"text": "hello"}
        raise OverflowError("date value out of range")

    monkeypatch.setattr(datasets, "load_dataset", rows)
    with pytest.raises(ValueError, match=r"someone/rows:2: cannot be read \(OverflowError: date value out of range\)"):
        origins("someone/rows")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}\n{"x": 2}\n{"x": \n', r"a.jsonl:3: not valid JSON"),
        ("a.jsonl", '{"x": "1\n', r"a.jsonl:1: not valid JSON \(Unterminated string starting at column 7\)"),
        ("a.json", '[\n{"x": 1},\n{"x" 2}\n]', r"a.json:3: not valid JSON"),
        ("a.json", '[{"x": 1}', r"a.json: the list does not end"),
        ("a.json", '[{"x": 1} {"x": 2}]', r"a.json:1: found '\{\"x\": 2\}\]'; expected ','"),
        ("a.json", '{"x": 1}', r"a.json:1: found .* a .json file must contain a list"),
        ("a.jsonl", "[1]\n", r"a.jsonl:1: found a list; expected an object"),
        ("a.jsonl", "", r"a.jsonl: the file is empty"),
        ("a.csv", "a,b\n1\n", r"a.csv:2: the row has 1 column; expected 2"),
        ("a.txt", b"\xff\xfeh\x00", r"a.txt: UTF-16 \(it begins with"),
        ("a.txt", b"a\xff\xfeh", r"a.txt:1: not UTF-8"),
        ("a.xml", "<x/>", r"a.xml: unknown file type '.xml'; expected .json"),
        ("a.parquet", "no", r"a.parquet: not a readable parquet file \(.*smaller than"),
        ("a.jsonl", "[" * 200_000 + "\n", r"a.jsonl:1: nested too deeply"),
    ],
)
def test_broken_files_are_named_with_place_and_fix(
    write: Callable[..., str], name: str, content: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        origins(write(name, content))


def test_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no/such.json: no such file or folder"):
        origins("no/such.json")


def test_rejected_records_are_skipped_when_reject_returns(write: Callable[..., str]) -> None:
    messages: list[str] = []
    path = write("a.jsonl", '{"x": 1}\nbroken\n{"x": 3}\n')
    records = list(read_records(path, reject=messages.append))
    assert [record.fields["x"] for record in records] == [1, 3]
    assert len(messages) == 1
    assert ":2: not valid JSON" in messages[0]


def test_fingerprint_follows_content(write: Callable[..., str]) -> None:
    path = write("a.jsonl", [{"x": 1}])
    before = source_fingerprint(path)
    write("a.jsonl", [{"x": 2}])
    assert source_fingerprint(path) != before


def test_misspelt_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"trian\.json: no such file or folder; did you mean .*train\.json\?"):
        origins(str(tmp_path / "trian.json"))


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("Où est le café de la rivière ?", "latin-1", "WINDOWS-1252"),
        ("It’s “quoted” – for €5", "cp1252", "WINDOWS-1252"),
        ("刺猬住在哪里？", "gb18030", "GB18030"),
        ("Hedgehog 刺猬, 住在 a nest 里", "gbk", "GB18030"),
        ("a \x81 control character", "latin-1", "ISO-8859-1"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "txt"])
def test_text_in_another_encoding_is_an_error_that_names_it(
    kind: str, text: str, encoding: str, name: str, write: Callable[..., str]
) -> None:
    content = {"json": '[{"a": "#"}]', "jsonl": '{"a": "#"}', "txt": "#", "csv": "a,b\n#,1", "tsv": "a\tb\n#\t1"}[kind]
    shown = text.replace(",", " ")
    path = write(f"a.{kind}", (content + "\n").replace("#", shown).encode(encoding))
    messages: list[str] = []
    assert list(read_records(path, reject=messages.append)) == []
    assert re.search(
        rf"not UTF-8 \(byte 0x[0-9a-f]+\); it looks like .*`iconv -f {name} -t UTF-8 OLD > NEW`", messages[0]
    )
