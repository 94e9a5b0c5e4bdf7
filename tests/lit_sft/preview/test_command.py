"""The preview command: it shows exactly what is trained, and data cannot inject markup or control sequences."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS, resolve_mask
from data_modules.rendering.segments import SegmentKind
from lit_sft.__main__ import main
from lit_sft.preview.page import page
from lit_sft.preview.terminal import print_examples
from lit_sft.reporting.token_view import show_example, to_json, visible

END, IM_START, IM_END = 256, 257, 258
TWO_TURNS = {"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}
HOSTILE = {
    "conversation": [
        {
            "human": "<script>alert(1)</script> \x1b[31mred \x9b31m [bold]x[/bold] https://example.org/",
            "assistant": "\u202e&lt;",
        }
    ]
}

Preview = Callable[..., str]


@pytest.fixture
def preview(
    write: Callable[..., str], tokenizer_folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Preview:
    """Run the command on rows, with a config whose model cannot be built; returns the output."""

    def _preview(rows: list[dict[str, Any]], *arguments: str, status: int = 0) -> str:
        config = {
            "model": {
                "backbone": {
                    "config": {"model_type": "gpt2", "n_layer": 4000, "n_embd": 10**6, "n_positions": 512},
                    "tokenizer": tokenizer_folder,
                }
            },
            "data": {
                "train": write("rows.jsonl", rows),
                "val_fraction": 0.0,
                "test_fraction": 0.0,
                "template": "chatml",
            },
            "run": {"root": str(tmp_path / "runs")},
        }
        assert main(["preview", "--config", write("config.yaml", json.dumps(config)), *arguments]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return _preview


def example(*segments: tuple[SegmentKind, list[int]]) -> Example:
    """An example of one turn."""
    ids = [index for _, part in segments for index in part]
    kinds = [kind for kind, part in segments for _ in part]
    turns = np.zeros(len(ids), dtype=np.int16)
    return Example(np.array(ids, dtype=np.int32), np.array(kinds, dtype=np.uint8), turns, "rows.jsonl:1")


def printed(shown: Any, *, width: int = 80, **console: Any) -> str:
    file = io.StringIO()
    print_examples(Console(file=file, width=width, **console), "", [shown])
    return file.getvalue()


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tokens: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "span" and "title" in dict(attrs):
            self.tokens.append("")

    def handle_data(self, data: str) -> None:
        if self.tokens:
            self.tokens[-1] += data


def test_json_gives_ids_kinds_turns_and_flags_of_every_mask(preview: Preview) -> None:
    row = json.loads(preview([TWO_TURNS], "--json"))
    user, assistant = [IM_START, *b"user\n"], [IM_END, 10, IM_START, *b"assistant\n"]
    ids = [*user, ord("a"), *assistant, ord("b"), IM_END, 10, *user, ord("c"), *assistant, ord("d"), IM_END, 10]
    kinds = 6 * ["TEMPLATE"] + ["USER"] + 13 * ["TEMPLATE"] + 2 * ["ANSWER"] + 7 * ["TEMPLATE"] + ["USER"]
    kinds += 13 * ["TEMPLATE"] + 2 * ["FINAL_ANSWER"] + ["TEMPLATE"]
    assert row.pop("origin").endswith("rows.jsonl:1")
    assert row.pop("tokens")[:8] == ["<|im_start|>", "u", "s", "e", "r", "\n", "a", "<|im_end|>"]
    assert row == {
        "input_ids": ids,
        "kinds": kinds,
        "turns": 20 * [0] + 2 * [1] + 21 * [2] + 3 * [3],
        "supervised": {
            "whole_sequence": [False] + 45 * [True],
            "output_only": 43 * [False] + [True, True, False],
            "firefly_multi_turn": 20 * [False] + [True, True] + 21 * [False] + [True, True, False],
        },
    }


def test_json_gives_as_many_lines_as_asked_for_and_nothing_else(preview: Preview) -> None:
    rows = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(5)]
    lines = preview(rows, "--json", "--num", "2").splitlines()
    assert [json.loads(line)["origin"][-1] for line in lines] == ["1", "2"]


def test_json_says_which_run_on_stderr_only(
    preview: Preview, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    preview([TWO_TURNS])
    run = tmp_path / "runs" / "quick" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()
    # a run's config.yaml also contains options that only `fit` has
    config = json.loads((tmp_path / "config.yaml").read_text()) | {"ckpt_path": None, "weights_only": None}
    (run / "config.yaml").write_text(json.dumps(config))
    assert main(["preview", "--run.root", str(tmp_path / "runs"), "--json"]) == 0
    newest = capsys.readouterr()
    assert main(["preview", str(run), "--json"]) == 0
    named = capsys.readouterr()
    assert len(json.loads(newest.out)["input_ids"]) == 46
    assert named.out == newest.out
    assert newest.err.startswith("preview: run")


@pytest.mark.parametrize("text", ["你好，世界", "😀 👨\u200d👩\u200d👧 e\u0301", "Grüße\n\tनमस्ते"])
def test_text_survives_when_characters_are_several_tokens(preview: Preview, text: str) -> None:
    rows = [{"instruction": text, "output": text}]
    tokens = json.loads(preview(rows, "--json"))["tokens"]
    assert "".join(tokens) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"


def test_tokens_joined_are_what_the_tokenizer_decodes(tokenizer: PreTrainedTokenizerFast) -> None:
    cut = example((SegmentKind.TEMPLATE, [IM_START]), (SegmentKind.USER, [*"é世".encode()[:-1]]))
    tokens = to_json(cut, tokenizer)["tokens"]
    assert "".join(tokens) == tokenizer.decode(cut.input_ids.tolist()) == "<|im_start|>é\ufffd"


def test_pieces_join_the_tokens_of_a_character_and_show_bytes_of_a_cut_one(tokenizer: PreTrainedTokenizerFast) -> None:
    cut = example((SegmentKind.USER, [ord("a"), *"世世".encode()[:-1]]), (SegmentKind.FINAL_ANSWER, [ord("b")]))
    rows = show_example(cut, tokenizer, []).rows
    assert [[(piece.text, len(piece.ids)) for piece in row.pieces] for row in rows] == [
        [("a", 1), ("世", 3), ("⟨E4⟩⟨B8⟩", 2)],
        [("b", 1)],
    ]


def test_a_part_of_a_character_that_is_not_continued_is_a_piece_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    broken = [ord("a"), 0xEE, ord("o"), 0xE4, 0xB8, *"世".encode()]
    (row,) = show_example(example((SegmentKind.FINAL_ANSWER, broken)), tokenizer, []).rows
    assert [piece.text for piece in row.pieces] == ["a", "⟨EE⟩", "o", "⟨E4⟩⟨B8⟩", "世"]
    assert to_json(example((SegmentKind.FINAL_ANSWER, broken)), tokenizer)["tokens"][1:3] == ["\ufffd", "o"]


def test_pieces_keep_the_first_token_apart_as_it_is_never_supervised(tokenizer: PreTrainedTokenizerFast) -> None:
    shown = show_example(example((SegmentKind.TEXT, [*"世a".encode()])), tokenizer, [MASKS["whole_sequence"]])
    assert "⟨E4⟩⟦⟨B8⟩⟨96⟩a⟧" in printed(shown)


def test_pieces_of_sentencepiece_tokens_are_read_as_spaces_and_bytes() -> None:
    vocabulary = {"▁Hi": 0, "<0xE4>": 1, "<0xB8>": 2, "<0x96>": 3}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="▁Hi"))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert to_json(example((SegmentKind.TEXT, [0, 1, 2, 3])), tokenizer)["tokens"] == [" Hi", "", "", "世"]


def test_masks_side_by_side_show_their_differences(preview: Preview) -> None:
    out = preview([TWO_TURNS], "--masks", "output_only", "firefly_multi_turn")
    first, second = re.split("firefly_multi_turn", out)
    assert "2 of 46 tokens supervised (4.3%)" in first
    assert "4 of 46 tokens supervised (8.7%)" in second
    assert re.findall(r"⟦(.*?)⟧", first.partition("output_only")[2]) == ["d<|im_end|>"]
    assert re.findall(r"⟦(.*?)⟧", second) == ["b<|im_end|>", "d<|im_end|>"]


def test_masks_default_to_the_configs_own_and_whole_sequence(preview: Preview) -> None:
    out = preview([TWO_TURNS], "--data.mask", "firefly_multi_turn")
    assert [name for name in MASKS if name in out] == ["whole_sequence", "firefly_multi_turn"]
    assert preview([TWO_TURNS], "--data.mask", "whole_sequence").count("tokens supervised") == 1


def test_masks_are_shown_side_by_side_only_if_they_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    shown = show_example(example((SegmentKind.USER, [*b"ab"])), tokenizer, list(MASKS.values())[:2])
    both = re.compile("whole_sequence.*output_only")
    assert both.search(printed(shown, width=120))
    assert not both.search(printed(shown, width=80))


def test_fractional_weights_are_shown(tokenizer: PreTrainedTokenizerFast) -> None:
    document = example((SegmentKind.USER, [*b"abcde"]), (SegmentKind.FINAL_ANSWER, [*b"xy"]))
    shown = show_example(document, tokenizer, [resolve_mask("output_only", prompt_weight=0.25)])
    assert shown.views[0].caption == "6 of 7 tokens supervised (85.7%), their weights sum to 3.0"
    assert "supervised, weight 0.25" in page("", [shown])


def test_colour_marks_supervised_tokens_by_underlining(tokenizer: PreTrainedTokenizerFast) -> None:
    document = example((SegmentKind.USER, [*b"ab"]), (SegmentKind.FINAL_ANSWER, [*b"xy"]))
    shown = show_example(document, tokenizer, [MASKS["output_only"]])
    out = printed(shown, force_terminal=True, color_system="truecolor").rpartition("USER")[2]
    styles = {text: codes for codes, text in re.findall(r"\x1b\[([0-9;]+)m([abxy])\x1b", out)}
    assert {text: codes.startswith("1;4;") for text, codes in styles.items()} == {
        "a": False, "b": False, "x": True, "y": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a↵\nb"),
        ("\r\n", "␍↵\n"),
        ("a b", "a b"),
        (" ", "·"),
        ("  a \n", "··a·↵\n"),
        ("\t\x00\x1b[0m\x7f\x9b", "⇥␀␛[0m␡⟨U+009B⟩"),
        ("\u202e\ufeff\u2028\xa0", "⟨U+202E⟩⟨U+FEFF⟩⟨U+2028⟩⍽"),
        ("\u200d", "⟨U+200D⟩"),
        ("👩\u200d👧", "👩\u200d👧"),
    ],
)
def test_visible_shows_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_output_holds_no_raw_escape_sequence_of_the_data(preview: Preview, arguments: tuple[str, ...]) -> None:
    out = preview([HOSTILE], *arguments)
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert "[bold]" in out.replace("\n", "") or arguments


def test_colour_output_holds_no_raw_escape_sequence_of_the_data(tokenizer: PreTrainedTokenizerFast) -> None:
    shown = show_example(
        example((SegmentKind.USER, [*b"a\x1b]0;title\x07\x1b[31m"])), tokenizer, [MASKS["output_only"]]
    )
    out = printed(shown, force_terminal=True, color_system="truecolor")
    own = r"\x1b\[(0|1|2|1;4|(1;4;)?38;2;\d+;\d+;\d+)m"
    assert re.sub(own, "", out).replace("\n", "").isprintable()


def test_html_escapes_data_and_loads_nothing_external(preview: Preview, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert preview([HOSTILE], "--html", str(file)) == ""
    text = file.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "<script" not in text
    assert not {"script", "link", "img", "iframe", "a", "object"} & set(parsed.tags)
    assert not {name for name, _ in parsed.attributes} & {"src", "href", "onclick", "onload"}
    assert not re.findall(r"url\(|@import|\x1b", text)
    assert "<script>alert(1)</script>" in "".join(parsed.tokens)
    assert "&lt;" in "".join(parsed.tokens)


def test_html_escapes_a_token_that_is_a_whole_tag_and_the_name_of_the_file() -> None:
    vocabulary = {"<script>alert(1)</script>": 0, '"><img src=x>': 1}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token='"><img src=x>'))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    document = replace(example((SegmentKind.TEXT, [0, 1])), origin="<b>.jsonl:1")
    text = page("<i>", [show_example(document, tokenizer, [MASKS["whole_sequence"]])])
    assert not {"script", "img", "i"} & set(Page(text).tags)
    assert Page(text).tokens[0] == "<script>alert(1)</script>"
    assert "&lt;b&gt;.jsonl:1" in text


def test_html_names_id_kind_turn_and_supervision_of_every_token(tokenizer: PreTrainedTokenizerFast) -> None:
    document = example((SegmentKind.USER, [ord("a"), *"世".encode()]), (SegmentKind.FINAL_ANSWER, [END]))
    text = page("", [show_example(document, tokenizer, [MASKS["output_only"]])])
    assert re.findall('title="([^"]+)"', text) == [
        "id 97, USER, turn 0, not supervised",
        "id 228+184+150, USER, turn 0, not supervised",
        "id 256, FINAL_ANSWER, turn 0, supervised",
    ]


def test_html_breaks_lines_where_the_text_does(tokenizer: PreTrainedTokenizerFast) -> None:
    document = example((SegmentKind.USER, [*b"a\nb"]))
    parsed = Page(page("", [show_example(document, tokenizer, [MASKS["output_only"]])]))
    assert "".join(parsed.tokens).startswith("a↵\nb")


def test_html_to_an_unwritable_path_is_an_error(preview: Preview, tmp_path: Path) -> None:
    message = preview([TWO_TURNS], "--html", str(tmp_path / "none" / "page.html"), status=2)
    assert re.search(r"--html .*page\.html: cannot be written \(No such file or directory\); expected", message)


def test_truncation_losses_are_printed_below_the_summary(preview: Preview, tmp_path: Path) -> None:
    limit = ("--data.max_length", "30", "--data.mask", "firefly_multi_turn")
    lost = "train: 1 of 2 answers was cut or lost, because conversations are longer than --data.max_length 30."
    lines = preview([TWO_TURNS], *limit).splitlines()
    assert lines[0].startswith("train: 1 of 1 examples")
    assert lines[1] == lost[: len(lines[1])]
    assert "the mask firefly_multi_turn trains them as output_only would" in " ".join(lines)
    preview([TWO_TURNS], *limit, "--html", str(tmp_path / "page.html"))
    assert lost in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_truncated_examples_are_marked_in_the_terminal_and_on_the_page(preview: Preview, tmp_path: Path) -> None:
    rows = [{"conversation": [{"human": "a", "assistant": "b"}]}, TWO_TURNS]  # 23 and 46 tokens
    out = re.sub(r"\s", "", preview(rows, "--data.max_length", "30"))  # long paths are wrapped
    assert "rows.jsonl:123tokensoutput_only" in out
    assert "rows.jsonl:223tokens,truncatedfrom46tokensoutput_only" in out
    preview(rows, "--data.max_length", "30", "--html", str(tmp_path / "page.html"))
    headings = re.findall("<h2>.*</h2>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [heading.partition("rows.jsonl")[2] for heading in headings] == [
        ":1 <small>23 tokens</small></h2>",
        ":2 <small>23 tokens, <b>truncated from 46 tokens</b></small></h2>",
    ]


def test_records_that_were_dropped_are_counted_with_the_reason(
    preview: Preview, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [TWO_TURNS, {"conversation": None}, {"conversation": 3}]
    drop = ("--data.on_invalid", "drop")
    said = " ".join(preview(rows, *drop).split())
    assert "train: 2 of 3 records were dropped as invalid: 1 like " in said
    assert "field 'conversation' is null; expected a list of turns | 1 like " in said
    assert "NoneType" not in said
    assert "on_invalid" not in said
    (line,) = preview(rows, *drop, "--json").splitlines()
    assert json.loads(line)
    preview(rows, *drop, "--html", str(tmp_path / "page.html"))
    assert "2 of 3 records were dropped as invalid" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_preview_of_valid_rows_does_not_mention_dropped_records(preview: Preview) -> None:
    assert "dropped" not in preview([TWO_TURNS], "--data.on_invalid", "drop")


def test_misspelt_model_setting_is_refused_as_in_fit(preview: Preview) -> None:
    said = preview([TWO_TURNS], "--model.backbone.config.n_positons", "64", status=2)
    assert "--model.backbone.config: gpt2 has no setting n_positons; did you mean n_positions?" in said


def test_split_that_is_missing_or_empty_says_so(preview: Preview) -> None:
    assert "--split val: the data has no such split; it has train" in preview([TWO_TURNS], "--split", "val", status=2)
    empty = preview([TWO_TURNS], "--data.max_length", "9", "--data.over_long", "drop", status=2)
    assert "--split train: --data.max_length 9 is too small: none of the train records fit (1 longer than 9 t" in empty


def test_preview_builds_no_model_and_leaves_no_run_folder(
    preview: Preview, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lit_sft.training.module.build_backbone", None)
    monkeypatch.setattr("lit_sft.settings.reading.Settings.instantiated", None)
    assert "46 tokens" in preview([TWO_TURNS])
    assert not (tmp_path / "runs").exists()


def test_html_replaces_an_earlier_page_and_no_other_file(preview: Preview, tmp_path: Path) -> None:
    notes, page = tmp_path / "notes.yaml", tmp_path / "page.html"
    notes.write_text("mine: 1\n")
    message = preview([TWO_TURNS], "--html", str(notes), status=2)
    assert re.search(r"--html .*notes\.yaml: exists and is not a page; expected", message)
    assert notes.read_text() == "mine: 1\n"
    for _ in range(2):
        preview([TWO_TURNS], "--html", str(page))
    assert page.read_text(encoding="utf-8").startswith("<")


def test_help_begins_with_the_usage_and_the_options_of_preview_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: python -m lit_sft preview [RUN | --config FILE ...]")
    places = {
        option: next(number for number, line in enumerate(lines) if line.startswith(f"  {option}"))
        for option in ("--split", "--num", "--masks", "--html", "--json", "--data.train")
    }
    own = {option: places.pop(option) for option in ("--split", "--num", "--masks", "--html", "--json")}
    assert max(own.values()) < 25 < min(places.values())


@pytest.mark.parametrize("columns", [20, 41, 80])
def test_mask_that_supervises_nothing_is_a_warning(
    preview: Preview, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))  # narrower than the file's name, which must stay whole
    shown = " ".join(
        preview([{"text": f"Line {number}."} for number in range(9)], "--data.mask", "output_only").split()
    )
    assert re.search("warning .*rows.jsonl: mask 'output_only' supervises no token of the 9 train examples", shown)
