"""Commands run for users without a name or a home, and on terminals that cannot show every character."""

from __future__ import annotations

import getpass
import io
import locale
import os
import pwd
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_modules.errors import UserNotice
from data_modules.sft_data_module import SFTDataModule
from lit_sft.__main__ import main
from lit_sft.environment import settle, show_notices, use_utf8
from tests.conftest import MODELS


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user id without an account; returns the temporary folder."""

    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "LIT_SFT_CACHE"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_unknown_user_gets_a_private_home_and_a_name(nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settle()
    home = Path.home()
    assert home.parent == nobody
    assert home.stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == f"user{os.getuid()}"
    assert f"has no home folder; caches go to {home}" in capsys.readouterr().err
    settle()
    assert Path.home() == home
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("trap", ["link", "open to others"])
def test_folder_that_others_could_have_created_is_not_used_as_home(nobody: Path, trap: str) -> None:
    bait = nobody / f"lit_sft-{os.getuid()}"
    (nobody / "elsewhere").mkdir()
    if trap == "link":
        bait.symlink_to(nobody / "elsewhere")
    else:
        bait.mkdir()
        bait.chmod(0o777)
    settle()
    assert Path.home().resolve() not in (bait.resolve(), nobody / "elsewhere")
    assert Path.home().stat().st_mode & 0o777 == 0o700


def test_data_without_a_home_to_cache_in_says_how_to_give_a_folder(nobody: Path) -> None:
    with pytest.raises(ValueError, match=r"no home folder .* `--data.cache_dir FOLDER` or LIT_SFT_CACHE"):
        SFTDataModule("rows.jsonl")


CHINESE = [{"instruction": f"第{n}个问题：你好吗？", "output": "很好 😀"} for n in range(12)]


def test_terminal_without_unicode_gets_escape_codes(
    write: Callable[..., str],
    tokenizer_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {
            "train": write("记录.jsonl", CHINESE),
            "template": "chatml",
            "val_fraction": 0.2,
            "test_fraction": 0.3,
        },
        "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "run": {"root": str(tmp_path / "runs"), "name": "运行"},
    }
    path, run = (
        write("设置.yaml", yaml.safe_dump(config, allow_unicode=True)),
        str(tmp_path / "runs" / "运行" / "version_0"),
    )
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        assert main(["fit", "--config", path]) == 0
        assert main(["preview", "--config", path, "--num", "2"]) == 0
        assert main(["validate", run]) == 0
        assert main(["fit", "--config", path, "--data.train", "没有.jsonl"]) == 2
    shown, errors = (stream.buffer.getvalue().decode("ascii") for stream in (out, err))  # type: ignore[attr-defined]
    assert "\\u27e6\\u5f88\\u597d" in shown.replace(" ", "")
    assert "\\u6ca1\\u6709.jsonl: no such file" in errors


@pytest.mark.parametrize("options", [["-X", "utf8=0"], ["-E"], ["-I", "-X", "utf8=0"], ["-X", "utf8=1"]], ids=" ".join)
def test_utf8_is_chosen_once_whatever_options_python_was_started_with(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    rest = ["-m", "lit_sft", "--help"]
    monkeypatch.setattr(locale, "getencoding", lambda: "ANSI_X3.4-1968")
    monkeypatch.setattr(os, "execve", lambda _, command, __: started.append(command))
    monkeypatch.setattr(sys, "flags", SimpleNamespace(utf8_mode=0))
    monkeypatch.setattr(sys, "orig_argv", ["python", *options, *rest])
    use_utf8()
    monkeypatch.setattr(sys, "orig_argv", ["python", *started[0][1:]] if started else sys.orig_argv)
    use_utf8()
    assert len(started) == (options != ["-X", "utf8=1"])
    code = ["-c", "import sys; print(sys.flags.utf8_mode)"]
    command = started[0][: -len(rest)] if started else [sys.executable, *options]
    unset = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run([*command, *code], env=unset, capture_output=True, check=True).stdout == b"1\n"


def test_files_are_read_as_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "字.txt").write_text("很好", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from lit_sft.environment import use_utf8; use_utf8(); "
        "print(ascii(Path(sys.argv[1]).read_text()), sys.stdout.encoding != 'utf-8'); print('\\u27e6')"
    )
    root = Path(__file__).parents[2]
    settings = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(root)}
    unset = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    done = subprocess.run(
        [sys.executable, "-c", code, "字.txt"], cwd=tmp_path, env=unset | settings, capture_output=True, check=True
    )
    assert done.stdout.decode("ascii").splitlines() == ["'\\u5f88\\u597d' True", "\\u27e6"]


def test_notices_are_one_line_and_other_warnings_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: others.append(str(message)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show_notices()
        warnings.warn("notes.txt: its lines look wrapped\x1b[2J", UserNotice, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "lit_sft: warning: notes.txt: its lines look wrapped\u241b[2J\n"
    assert others == ["not ours"]
