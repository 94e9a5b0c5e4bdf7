"""Outputs replace neither what is read nor files that are not reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_modules.errors import UserError
from lit_sft.files import write_json
from lit_sft.output_files import check_folder, check_outputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with records, and with a link to them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "data" / "rows.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "read", "message"),
    [
        ("data/rows.jsonl", "data/rows.jsonl", "is read by this command, and would be replaced"),
        ("data/../data/rows.jsonl", "link.jsonl", "is read by this command, and would be replaced"),
        ("data/clean.jsonl", "data", "which is read as a whole"),
        ("data", "data/rows.jsonl", "which is read; choose another folder"),
    ],
)
def test_outputs_and_inputs_are_apart(
    output: str, read: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as caught:
        check_outputs({"--output": output}, [read])
    assert str(caught.value).startswith(f"--output {output}: ")


def test_two_outputs_are_two_files(folder: Path) -> None:
    report = str(folder / "report.json")
    with pytest.raises(UserError, match="the same file as --sarif; choose another"):
        check_outputs({"--sarif": report, "--json": report})


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("content", ['{"files": 1}\n{"files": 2}\n', "[1, 2]", '{\n "version": 1\n}', "<xml></xml>"])
def test_only_reports_are_replaced(option: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"exists and is not a (page|report); expected a new file, or an earlier"):
        check_outputs({option: str(path)})


def test_earlier_reports_and_new_names_are_fine(folder: Path) -> None:
    for number, first in enumerate(("files", "data", "subject", "$schema")):
        path = folder / f"{number}.json"
        write_json(path, {first: [], "more": 1})
        check_outputs({"--json": str(path), "--sarif": None}, ["gpt2", str(folder / "data")])
    page = folder / "page.html"
    page.write_text("<!doctype html>\n<html></html>", encoding="utf-8")
    check_outputs({"--html": str(page), "--output": str(folder / "new")}, [str(folder / "link.jsonl")])


@pytest.mark.parametrize("option", ["--html", "--json", "--sarif", "--pairs"])
def test_files_that_cannot_be_written_are_refused_before_the_work(option: str, folder: Path) -> None:
    for name in ("no/report", "data/rows.jsonl/report"):
        with pytest.raises(UserError, match=r"cannot be written \(No such file.*expected a file in an existing folder"):
            check_outputs({option: str(folder / name)})
    with pytest.raises(UserError, match=r"this is a folder; expected the name of a file\."):
        check_outputs({option: str(folder / "data")})
    with pytest.raises(UserError, match=r"this is a folder; expected the name of a file\."):
        check_outputs({option: str(folder / "data")}, [str(folder / "data" / "rows.jsonl")])
    check_outputs({option: "/dev/null"})
    check_outputs({option: str(folder / "new" / "report")}, created=folder / "new" / "inner")


def test_a_folder_for_outputs_need_not_exist_but_can_be_made(folder: Path) -> None:
    check_folder("--output", folder / "data" / "a" / "b")
    for name in ("link.jsonl", "link.jsonl/a/b"):
        with pytest.raises(UserError, match=r"link\.jsonl is not a folder; choose another\."):
            check_folder("--output", folder / name)
