"""The lint command: what it can be pointed at, its exit status, and its reports as JSON, SARIF and HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lit_sft import __version__
from lit_sft.__main__ import main
from lit_sft.lint.rules import RULES
from tests.documents import ROOT
from tests.lit_sft.lint.conftest import CLEAN, chat

HOSTILE = chat("How are you?", "<script>alert(1)</script> \x1b[31mred\u200b [bold]x[/bold] \x9b")
FAULTY = [*CLEAN, CLEAN[1]]
Run = Callable[..., Any]


@pytest.fixture
def lint(tokenizer_folder: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; returns its exit status, and what it wrote to stdout and stderr."""

    def _lint(*arguments: str, tokenizer: bool = True) -> tuple[int, str, str]:
        status = main(["lint", *arguments, *(["--tokenizer", tokenizer_folder] if tokenizer else [])])
        return status, *capsys.readouterr()

    return _lint


def test_clean_data_exits_with_0_and_prints_the_speed(lint: Run, write: Callable[..., str]) -> None:
    status, out, _ = lint(write("rows.jsonl", CLEAN))
    assert status == 0
    assert re.fullmatch(
        r"0 errors, 0 warnings, 0 notes in 6 rows\. [\d.]+ s, [\d,]+ rows/s\. "
        r"settings: template plain, mask output_only, at most 1,024 tokens\n",
        out,
    )


def test_warnings_exit_with_1_only_if_strict(lint: Run, write: Callable[..., str]) -> None:
    path = write("rows.jsonl", FAULTY)
    assert [lint(path)[0], lint(path, "--strict")[0]] == [0, 1]
    assert lint(path, "--strict", "--ignore", "duplicate")[0] == 0


def test_errors_exit_with_1(lint: Run, write: Callable[..., str]) -> None:
    status, out, _ = lint(write("rows.jsonl", [*CLEAN, chat("How are you?", "")]))
    assert status == 1
    assert "error empty-answer: 1 row" in out
    assert "rows.jsonl:7: turn 2 (assistant) is empty" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_file.jsonl"], "no_such_file.jsonl: no such file or folder"),
        (["{rows}", "--rules", "duplicat"], "--rules duplicat: no rule 'duplicat'; did you mean duplicate?"),
        (["{rows}", "--rules", "mojibake", "--ignore", "mojibake"], "leave no rule"),
        (["{rows}", "--data.train", "{rows}"], "data files are named twice"),
        (["--labels", "{rows}"], "rows.jsonl:1: no field 'input_ids'"),
        (["{rows}", "--labels", "{rows}"], "not expected with --labels"),
        (["{rows}", "--html", "{rows}"], "is read by this command, and would be replaced"),
        (["{rows}", "--json", "{rows}"], "is read by this command, and would be replaced"),
        (["{rows}", "--sarif", "{folder}/a.json", "--json", "{folder}/a.json"], "the same file as --json"),
    ],
)
def test_what_cannot_run_exits_with_2(arguments: list[str], message: str, lint: Run, write: Callable[..., str]) -> None:
    path = write("rows.jsonl", CLEAN)
    folder = str(Path(path).parent)
    status, _, errors = lint(*(argument.replace("{rows}", path).replace("{folder}", folder) for argument in arguments))
    assert (status, message in errors) == (2, True), errors


def test_without_a_tokenizer_the_text_is_linted(lint: Run, write: Callable[..., str]) -> None:
    status, out, _ = lint(write("rows.jsonl", FAULTY), tokenizer=False)
    assert status == 0
    assert "warning duplicate: 1 row" in out
    assert re.search(r"not run \(no tokenizer: set --tokenizer FOLDER.*\): end-token-unsupervised, ", out)


def test_files_may_follow_the_options_as_hooks_pass_them(lint: Run, write: Callable[..., str]) -> None:
    one, other = write("one.jsonl", CLEAN[:3]), write("other.jsonl", CLEAN[3:])
    status, out, _ = lint("--strict", "--ignore", "mojibake", one, other)
    assert (status, "in 6 rows" in out) == (0, True)


def test_all_rows_of_named_files_are_one_split(lint: Run, write: Callable[..., str]) -> None:
    rows = [chat(f"What is the name of house {number}?", f"It is called {number * 7919}.") for number in range(60)]
    assert "in 60 rows." in lint(write("rows.jsonl", rows), "--ignore", "near-duplicate")[1]


def test_config_gives_template_mask_and_held_out_files(
    lint: Run, write: Callable[..., str], tokenizer_folder: str
) -> None:
    config = write(
        "run.yaml",
        json.dumps(
            {
                "model": {"backbone": {"config": {"model_type": "gpt2"}, "tokenizer": tokenizer_folder}},
                "data": {
                    "train": write("rows.jsonl", CLEAN),
                    "val": write("val.jsonl", CLEAN[:1]),
                    "test_fraction": 0.0,
                    "template": "chatml",
                    "mask": "whole_sequence",
                    "max_length": 200,
                },
            }
        ),
    )
    out = lint("--config", config, tokenizer=False)[1]
    assert "template chatml, mask whole_sequence, at most 200 tokens" in out
    assert "(6 train, 1 val)" in out
    assert "warning split-leak: 1 row" in out
    assert "warning everything-supervised: 7 rows" in out


def test_run_is_linted_with_its_own_settings(
    lint: Run, write: Callable[..., str], tmp_path: Path, tokenizer_folder: str
) -> None:
    run = tmp_path / "runs" / "one"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    backbone = {"config": {"model_type": "gpt2", "n_positions": 256}, "tokenizer": tokenizer_folder}
    data = {"train": write("rows.jsonl", FAULTY), "val_fraction": 0.0, "test_fraction": 0.0, "template": "chatml"}
    (run / "config.yaml").write_text(json.dumps({"model": {"backbone": backbone}, "data": data}))
    status, out, errors = lint(str(run), "--strict", tokenizer=False)
    assert (status, "warning duplicate: 1 row" in out) == (1, True), errors


def test_rules_are_listed(lint: Run) -> None:
    out = lint("--list-rules", tokenizer=False)[1]
    assert [line.split()[0] for line in out.splitlines()] == [*RULES]


def test_json_report(lint: Run, write: Callable[..., str], tmp_path: Path) -> None:
    path, target = write("rows.jsonl", FAULTY), tmp_path / "report.json"
    lint(path, "--json", str(target))
    report = json.loads(target.read_text())
    assert (report["subject"], report["rows"], report["errors"], report["warnings"]) == (path, {"train": 7}, 0, 1)
    (finding,) = report["findings"]
    assert (finding["rule"], finding["severity"], finding["rows"]) == ("duplicate", "warning", 1)
    assert finding["examples"] == [
        {"origin": f"{path}:7", "detail": f"the same conversation as {path}:2", "quote": "Name three fruits."}
    ]


def test_sarif_report_has_every_required_field(lint: Run, write: Callable[..., str], tmp_path: Path) -> None:
    path, target = write("some rows.jsonl", [*FAULTY, chat("How are you?", "")]), tmp_path / "report.sarif"
    lint(path, "--sarif", str(target))
    log = json.loads(target.read_text())
    assert (log["version"], log["$schema"].endswith("sarif-schema-2.1.0.json")) == ("2.1.0", True)
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("lit_sft lint", __version__)
    assert [rule["id"] for rule in driver["rules"]] == [*RULES]
    assert {rule["defaultConfiguration"]["level"] for rule in driver["rules"]} <= {"error", "warning", "note", "none"}
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in driver["rules"])
    assert [invocation["executionSuccessful"] for invocation in run["invocations"]] == [True]
    results = [(result["ruleId"], result["level"]) for result in run["results"]]
    assert results == [("empty-answer", "error"), ("duplicate", "warning")]
    for result, line in zip(run["results"], (8, 7), strict=True):
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert unquote(place["artifactLocation"]["uri"]) == f"file://{path}"
        assert " " not in place["artifactLocation"]["uri"]
        assert place["region"] == {"startLine": line}


def test_page_shows_rules_and_tokens_and_runs_no_script(lint: Run, write: Callable[..., str], tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    lint(write("rows.jsonl", [*CLEAN, HOSTILE]), "--html", str(target), "--data.prompt_weight", "0.5")
    html = target.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html
    assert "\u200b" not in html
    assert 'id="invisible-character"' in html
    # the tokens of an example, supervised with the weight of prompts
    assert re.search(r'<span class="t kind|<span class="t on part"', html)
    assert "TEMPLATE, turn 0, supervised, weight 0.5" in html


def test_terminal_output_contains_no_control_sequence(lint: Run, write: Callable[..., str]) -> None:
    out = lint(write("rows.jsonl", [*CLEAN, HOSTILE]))[1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x9b\u200b]", out)
    assert "[bold]x[/bold]" in out


def test_page_of_a_dump_shows_its_labels(lint: Run, write: Callable[..., str], tmp_path: Path) -> None:
    target = tmp_path / "labels.html"
    dump = [{"input_ids": [*b"Hi? Yes."], "labels": [-100] * 8}]
    status, out, _ = lint("--labels", write("labels.jsonl", dump), "--html", str(target))
    assert (status, "error nothing-supervised: 1 row" in out) == (1, True)
    assert "labels of the dump <small>0 of 8 tokens supervised (0.0%)</small>" in target.read_text()


CLEAN_SETS = {
    "train": ["examples/world/train.json"],
    "conversations": ["examples/world/conversations.jsonl"],
    "val": ["examples/world/val.json", "--data.mask", "firefly_multi_turn"],
    "test": ["examples/world/test.json", "--data.template", "alpaca"],
    "config": ["--config", "configs/quickstart.yaml"],
}


@pytest.mark.parametrize("name", CLEAN_SETS)
def test_bundled_data_has_no_faults(name: str, lint: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tokenizer = [] if name == "config" else ["--tokenizer", "examples/tokenizer"]
    status, out, errors = lint(*CLEAN_SETS[name], *tokenizer, "--strict", tokenizer=False)
    assert (status, "0 errors, 0 warnings" in out) == (0, True), out + errors


def test_page_of_the_docs_lists_every_rule_with_its_severity() -> None:
    text = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", text, flags=re.MULTILINE)
    assert listed == [(rule.name, rule.severity) for rule in RULES.values()]
