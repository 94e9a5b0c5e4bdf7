"""Replies on disk: found again by another process, whatever a killed one left, without their texts in memory."""

from __future__ import annotations

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_sft.endpoint.chat import Reply
from lit_sft.endpoint.journal import Billed, Journal

FULL = Reply("有 \u2028 text\n", 7, 3, "length", is_masked=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "journal.jsonl"


def test_replies_are_found_in_the_same_and_in_another_process(path: Path) -> None:
    journal = Journal(path)
    assert journal.get("a") is None
    journal.keep("a", FULL, model="m")
    journal.keep("b", Reply("b"))
    for found in (journal, Journal(path)):
        assert (found.get("a"), found.get("b"), found.get("c"), len(found)) == (FULL, Reply("b"), None, 2)
    assert "a" in journal
    assert "c" not in journal
    assert json.loads(path.read_text().splitlines()[0]) == {
        "key": "a", "text": FULL.text, "tokens_read": 7, "tokens_written": 3, "model": "m", "finish_reason": "length",
        "is_masked": True,
    }  # fmt: skip


def test_the_cache_of_an_earlier_judge_is_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"key": "8e1f", "text": "{\\"winner\\": \\"A\\"}", "tokens_read": 100, "tokens_written": 10}\n')
    assert Journal(path).get("8e1f") == Reply('{"winner": "A"}', 100, 10)


def test_the_last_reply_of_a_key_counts(path: Path) -> None:
    journal = Journal(path)
    journal.keep("a", Reply("first", 1, 1))
    journal.keep("a", Reply("second", 2, 2))
    assert journal.get("a") == Reply("second", 2, 2)
    assert Journal(path).get("a") == Reply("second", 2, 2)
    assert Journal(path).billed("") == Billed(3, 3)  # both were paid for


@pytest.mark.parametrize("size", [1, 30, -2, -1])
def test_half_a_line_of_a_killed_process_harms_no_other(path: Path, size: int) -> None:
    Journal(path).keep("a", Reply("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b'"a"', b'"b"')[:size])
    journal = Journal(path)
    has_b = size == -1  # all but its line break
    assert (journal.get("b") is not None) == has_b
    journal.keep("c", Reply("c"))
    journal.keep("d", Reply("d"))
    for found in (journal, Journal(path)):
        assert [found.get(key) for key in "acd"] == [Reply("a"), Reply("c"), Reply("d")]
        assert (found.get("b") is not None) == has_b


def test_lines_that_cannot_be_read_are_reported(path: Path) -> None:
    journal = Journal(path)
    for key in "abc":
        journal.keep(key, Reply(key))
    assert not Journal(path).damage
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"not JSON\n" + second + b"\n" + third[:9])
    journal = Journal(path)
    assert journal.unreadable == [2, 5]
    assert f"{path}: cannot read 2 lines, the first is line 2;" in journal.damage


def test_a_line_that_changed_behind_our_back_is_not_taken_for_another(path: Path) -> None:
    journal = Journal(path)
    journal.keep("a", Reply("a"))
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    assert journal.get("a") is None


def test_tokens_that_were_billed_add_up_by_model(path: Path) -> None:
    journal = Journal(path)
    journal.keep("a", Reply("a", 5, 2), model="m", at_most=Billed(99, 99))
    journal.keep("b", Reply("b"), model="m", at_most=Billed(40, 20))
    journal.note_unanswered("m", Billed(300, 100))
    journal.keep("c", Reply("c", 7, 7), model="other")
    for found in (journal, Journal(path)):
        assert found.billed("m") == Billed(5 + 40 + 300, 2 + 20 + 100, unanswered=1)
        assert found.billed("other") == Billed(7, 7)
        assert found.billed("none") == Billed()
        assert len(found) == 3


def test_each_reply_is_used_for_the_first_time_once(path: Path) -> None:
    journal = Journal(path)
    journal.keep("a", Reply("a"))
    assert [journal.is_first_use("a") for _ in range(3)] == [True, False, False]
    assert journal.get("a") == Reply("a")
    assert Journal(path).is_first_use("a")


def test_threads_write_whole_lines(path: Path) -> None:
    journal = Journal(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: journal.keep(str(n), Reply("x" * n)), range(200)))
    again = Journal(path)
    assert [again.get(str(n)) for n in range(200)] == [Reply("x" * n) for n in range(200)]
    assert len(path.read_bytes().splitlines()) == 200


def test_a_closed_journal_opens_again_when_needed(path: Path) -> None:
    journal = Journal(path)
    journal.keep("a", Reply("a"))
    journal.close()
    journal.keep("b", Reply("b"))
    assert (journal.get("a"), journal.get("b")) == (Reply("a"), Reply("b"))


def test_memory_holds_places_and_no_texts(path: Path) -> None:
    count = 20_000
    path.parent.mkdir()
    text = "text " * 100
    with path.open("w") as stream:
        for number in range(count):
            stream.write(json.dumps({"key": f"{number:016x}", "text": text}) + "\n")
    tracemalloc.start()
    journal = Journal(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(journal) == count
    assert held / count < 200
    assert journal.get(f"{count // 2:016x}") == Reply(text)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_said_with_the_name_of_the_file(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised:
        Journal(path).keep("a", Reply("a"))
    assert raised.value.filename == path
