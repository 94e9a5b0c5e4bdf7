"""Code in data, models or checkpoints is never run, and secrets are never written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown import markdown

from callbacks.sample_generation import markdown_text
from lit_sft.__main__ import main
from lit_sft.reporting.page import Finding, Report, Table, render_html, render_markdown
from tests.conftest import MODELS, chat_rows

RUNS_ITSELF = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "</p></section><svg onload=\"document.title = 'owned'\">",
    '"><body onload="document.title = \'owned\'">',
    "<iframe srcdoc=\"<script>parent.document.title = 'owned'</script>\"></iframe>",
]
ESCAPED_ALREADY = ["&lt;script&gt;document.title = 'owned'&lt;/script&gt;", "[x](javascript:document.title='owned')"]


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.sprung}'",)


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Open a page in a browser without a window; returns the document after its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium (`apt-get install chromium`)")

    def _open(page: str) -> str:
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
        done = subprocess.run(
            [browser, *options, (folder / "page.html").as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, "TMPDIR": "/tmp"},  # it makes sockets there, whose paths must be short
        )
        return done.stdout

    return _open


def is_owned(document: str) -> bool:
    title = re.search("<title>(.*?)</title>", document)
    return title is not None and title[1] == "owned"


@pytest.mark.parametrize("text", RUNS_ITSELF)
def test_attack_strings_do_run_if_not_escaped(open_page: Callable[[str], str], text: str) -> None:
    assert is_owned(open_page(f"<title>page</title><p>{text}</p>"))
    assert is_owned(open_page(f"<title>page</title>{markdown(text)}"))


def test_a_browser_runs_nothing_that_data_wrote_into_a_preview(
    open_page: Callable[[str], str], write: Callable[..., str], tokenizer_folder: str, tmp_path: Path
) -> None:
    texts = RUNS_ITSELF + ESCAPED_ALREADY
    rows = [{"conversation": [{"human": text, "assistant": text}]} for text in texts]
    name = "<svg onload=document.title='owned'>.jsonl"
    config = settings(write(name, rows), tokenizer_folder, tmp_path) | {"trainer": {}}
    config["data"] |= {"val_fraction": 0, "test_fraction": 0}
    file = tmp_path / "page.html"
    assert (
        main(["preview", "--config", write("c.yaml", yaml.safe_dump(config)), "--html", str(file), "--num", "9"]) == 0
    )
    document = open_page(file.read_text(encoding="utf-8"))
    assert not is_owned(document)
    assert document.count("<section>") == len(texts)


def test_a_browser_runs_nothing_that_a_model_wrote_into_markdown(open_page: Callable[[str], str]) -> None:
    cells = "\n".join(f"| {markdown_text(text)} |" for text in RUNS_ITSELF + ESCAPED_ALREADY)
    page = markdown(f"| answer |\n|---|\n{cells}", extensions=["tables"])
    document = open_page(f"<title>page</title>{page}")
    assert not is_owned(document)
    assert "<a " not in document
    assert document.count("<td>") == len(RUNS_ITSELF + ESCAPED_ALREADY)


def test_a_browser_runs_nothing_that_data_models_or_names_wrote_into_a_report(
    open_page: Callable[[str], str], tmp_path: Path
) -> None:
    texts = RUNS_ITSELF + ESCAPED_ALREADY
    picture = tmp_path / "chart.png"
    picture.write_bytes(b"")
    report = Report(
        question=texts[0],
        answers=texts,
        design=texts,
        tables=[Table(text, [text, text], [[text, text]], [text]) for text in texts],
        charts=[(texts[1], picture), (texts[2], picture)],
        headline=Table(texts[0], texts[:2], [[texts[0], Finding(texts[1], 1)]]),
        examples=[Table(text, [text, text], [[text, text]], [text], is_text=True) for text in texts],
    )
    document = open_page(render_html(report))
    assert not is_owned(document)
    assert document.count("<table") == 2 * len(texts) + 1
    assert not is_owned(open_page(f"<title>page</title>{markdown(render_markdown(report), extensions=['tables'])}"))


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_runs_nothing(
    command: str, write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap, sprung = tmp_path / "trap.ckpt", tmp_path / "sprung"
    trap.write_bytes(pickle.dumps(Trap(sprung)))
    config = settings(write("rows.jsonl", chat_rows(8)), tokenizer_folder, tmp_path)
    arguments = ["--config", write("c.yaml", yaml.safe_dump(config)), "--ckpt_path", str(trap)]
    assert main([command, *arguments]) == 2
    assert "trap.ckpt: damaged, truncated or not a checkpoint" in capsys.readouterr().err
    assert not sprung.exists()


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_model_code_runs_only_with_trust_remote_code(
    is_asked_for: bool,
    write: Callable[..., str],
    tokenizer_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, sprung = tmp_path / "model", tmp_path / "sprung"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}})
    )
    (model / "own.py").write_text(
        f"from pathlib import Path\nPath({str(sprung)!r}).touch()\nraise ValueError('its code has been run')\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = settings(write("rows.jsonl", chat_rows(8)), tokenizer_folder, tmp_path)
    config["model"] = {"backbone": {"pretrained": str(model), "tokenizer": tokenizer_folder}}
    asked = ["--model.backbone.trust_remote_code", "true"] if is_asked_for else []
    assert main(["fit", "--config", write("c.yaml", yaml.safe_dump(config)), *asked]) == 2
    said = capsys.readouterr().err
    assert sprung.exists() == is_asked_for, said
    assert ("its code has been run" if is_asked_for else "trust_remote_code") in said


def test_tokens_and_passwords_of_the_environment_are_in_no_file_of_a_run(
    write: Callable[..., str],
    tokenizer_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = "hf_QmVhdXR5Q291bnRz"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, secret)
    config = settings(write("rows.jsonl", chat_rows(12)), tokenizer_folder, tmp_path)
    config["data"] |= {"test_fraction": 0.3}
    assert main(["fit", "--config", write("c.yaml", yaml.safe_dump(config))]) == 0
    assert main(["test", "--run.root", config["run"]["root"]]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "result.json", "last.ckpt"} <= {path.name for path in files}
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    said = capsys.readouterr()
    assert secret not in said.out + said.err


def settings(records: str, tokenizer: str, folder: Path) -> dict[str, Any]:
    return {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer}},
        "data": {"train": records, "template": "chatml", "batch_size": 2},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "run": {"root": str(folder / "runs")},
    }
