"""`clean`: the ledger in the terminal and as JSON, the clean documents, and one message for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.ledger import CleaningLedger
from data_modules.cleaning.rules import RULES, SET_RULES
from data_modules.records.counts import RecordCounts
from data_modules.records.documents import read_documents
from data_modules.records.splits import Sources
from lit_sft.__main__ import main

TEXTS = [
    "北京（）是首都，\u200b人口很多。",
    "Achilles ( ) was  a hero.",
    "北京（）是首都，人口很多。",
    "短",
    "Nothing here.",
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return str(path)


def test_command_without_rules_tries_them_and_writes_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"│ {name} ") for line in lines) for name in ("nfc", "empty_brackets", "total"))
    assert not any("boilerplate_lines" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


def test_command_writes_the_clean_documents_and_the_ledger(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "clean.jsonl", tmp_path / "ledger.json"
    rules = ["control_characters", "empty_brackets", "white_space", "{min_length: {characters: 2}}", "exact_duplicates"]
    assert main(["clean", file, "--rules", *rules, "--output", str(output), "--json", str(report)]) == 0
    texts = [json.loads(line)["text"] for line in output.read_text(encoding="utf-8").splitlines()]
    assert texts == ["北京是首都，人口很多。", "Achilles was a hero.", "Nothing here."]
    written = json.loads(report.read_text(encoding="utf-8"))
    ledger = CleaningLedger.from_dict(written["ledger"])
    same = [*rules[:3], {"min_length": {"characters": 2}}, rules[4]]
    assert written["rules"] == Cleaner.from_settings(same).identity()
    assert (ledger.records_read, ledger.records_kept) == (5, 3)
    assert ledger.characters_kept == sum(map(len, texts))
    assert ledger.rules["exact_duplicates"].examples[0].reason == "repeats document 1"
    printed = capsys.readouterr().out
    assert f"  {file}:1\n      北京（）是首都，\\u200b人口很多。\n    → 北京（）是首都，人口很多。" in printed
    assert "dropped: 1 character" in printed


def test_clean_documents_of_one_article_still_belong_together(tmp_path: Path) -> None:
    file, output = tmp_path / "parts.jsonl", tmp_path / "clean.jsonl"
    rows = [
        {"text": "One ().", "article_id": "a"},
        {"text": "Alone ()."},
        {"text": "Two ().", "article_id": 7},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["clean", str(file), "--rules", "empty_brackets", "--output", str(output)]) == 0
    read, written = (
        [document.group for document in read_documents("train", Sources({"train": [str(each)]}), RecordCounts("error"))]
        for each in (file, output)
    )
    assert read == written == ["a", None, "7"]


@pytest.mark.parametrize("content", ["{}", "cleaning: {}", "data: {{cleaning: {}}}"])
def test_rules_may_be_in_a_file(file: str, tmp_path: Path, content: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(content.format("[nfc, {min_length: {characters: 10}}]"), encoding="utf-8")
    assert main(["clean", file, "--rules", str(rules), "--output", str(tmp_path / "clean.jsonl")]) == 0
    assert len((tmp_path / "clean.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def test_limit_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,body\n1,one\n2,two\n3,three\n", encoding="utf-8")
    output = tmp_path / "clean.jsonl"
    options = ["--columns", "body", "--limit", "2", "--rules", "nfc", "--output", str(output)]
    assert main(["clean", str(path), *options]) == 0
    assert output.read_text(encoding="utf-8") == '{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "nfcc"], "--rules[0]: unknown rule 'nfcc'; did you mean nfc?"),
        (["--rules", "no.yaml"], "--rules no.yaml: no such file; expected names of rules, or a YAML file with a list"),
        (["--output", "x.jsonl"], "--output: needs --rules, the rules to clean by"),
        (["--rules", "nfc", "--output", "x.txt"], "--output x.txt: expected a name that ends in .jsonl"),
        (["--rules", "nfc", "--output", "old.jsonl"], "exists already; choose another name, or add --overwrite."),
        (["--rules", "nfc", "--output", "{file}", "--overwrite"], "is read by this command, and would be replaced"),
        (["--json", "{file}"], "is read by this command, and would be replaced"),
        (["--rules", "nfc", "--output", "a.jsonl", "--json", "a.jsonl"], "the same file as --output"),
        (
            ["--rules", "nfc", "--output", "no/a.jsonl"],
            "--output no/a.jsonl: cannot be written (No such file or direct",
        ),
        (
            ["--json", "no/a.json"],
            "--json no/a.json: cannot be written (No such file or directory); expected a file in",
        ),
        (["--limit", "0"], "--limit 0: expected at least 1 document."),
        (["--colums", "x"], "--colums: no such option; did you mean --columns?"),
        (["--columns", "body"], "`--columns` reads text from 'body', which no record has"),
    ],
)
def test_mistake_is_one_message(
    file: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(file).parent)
    Path("old.jsonl").touch()
    assert main(["clean", file, *(argument.replace("{file}", file) for argument in arguments)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "--data." not in printed


def test_invalid_records_are_an_error_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n{"text": 3}\n', encoding="utf-8")
    assert main(["clean", str(path)]) == 2
    assert f"{path}:2" in capsys.readouterr().err
    assert main(["clean", str(path), "--on_invalid", "drop"]) == 0
    assert f"1 invalid record skipped, first: {path}:2" in " ".join(capsys.readouterr().err.split())


def test_list_of_rules_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--list-rules"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*RULES, *SET_RULES]
