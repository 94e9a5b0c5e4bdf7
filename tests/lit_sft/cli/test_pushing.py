"""export --push, through huggingface_hub's own client to a stub of the hub."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from data_modules.digests import write_digests
from lit_sft.__main__ import main
from tests.lit_sft.cli.conftest import run


class Hub:
    """A hub with one user, `me`, that stores what is uploaded.

    Attributes:
        private: Visibility of the repository; None as long as there is none.
        files: What was committed.
        statuses: Status of replies to requests whose path contains a text, instead of the right one.
        asked: Method and path of every request, with the token.
    """

    def __init__(self) -> None:
        self.private: bool | None = None
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.asked: list[tuple[str, str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
                status = next((code for part, code in hub.statuses.items() if part in self.path), 200)
                reply = hub.reply(self.path, body) if status == 200 else {"error": "no"}
                data = json.dumps(reply if reply is not None else {"error": "no such repository"}).encode()
                self.send_response(status if reply is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, path: str, body: bytes) -> Any:
        """The reply to a request that is in order; None if there is no such repository."""
        if path.endswith("/whoami-v2"):
            return {"type": "user", "name": "me", "orgs": []}
        if path.endswith("/repos/create"):
            asked = json.loads(body)
            if self.private is None:
                self.private = asked.get("private", asked.get("visibility") == "private")
            return {"url": f"{self.address}/me/{asked['name']}", "name": f"me/{asked['name']}"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if "/commit/" in path:
            rows = [json.loads(line)["value"] for line in body.splitlines() if b'"file"' in line]
            gone = [json.loads(line)["value"]["path"] for line in body.splitlines() if b'"deletedFile"' in line]
            self.files = {name: data for name, data in self.files.items() if name not in gone}
            self.files |= {row["path"]: base64.b64decode(row["content"]) for row in rows}
            return {"commitUrl": f"{self.address}/me/m/commit/0", "commitOid": "0" * 40, "success": True}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.files]
        if path.endswith("/validate-yaml"):
            return {"errors": [], "warnings": []}
        if self.private is None:
            return None
        return {"id": "me/m", "private": self.private, "siblings": [], "sha": "0" * 40, "tags": []}


def write_gguf_folder(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"weights")
    (folder / "README.md").write_text("A model.")
    write_digests(folder)
    return []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("HF_TOKEN", "hf_stub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def folder(path: str, root: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run("fit", "--config", path)
    capsys.readouterr()
    return root / "tiny" / "version_0"


def test_exactly_the_exported_files_are_uploaded_to_a_private_repository(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model" / "optimizer.pt").write_bytes(b"mine")
    (folder / "model" / "rows.jsonl").write_text("{}")
    run("export", str(folder), "--push", "m")
    assert capsys.readouterr().out.splitlines()[-1] == f"pushed  {hub.address}/me/m"
    exported = {p.name: p.read_bytes() for p in (folder / "model").iterdir()}
    del exported["optimizer.pt"], exported["rows.jsonl"]
    assert hub.files == exported
    assert {"model.safetensors", "README.md", "lit_sft.sha256", "chat_template.jinja"} <= hub.files.keys()
    assert hub.private is True
    assert {token for _, path, token in hub.asked if "validate" not in path} == {"Bearer hf_stub"}


def test_a_public_repository_needs_the_option(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.private = False
    assert main(["export", str(folder), "--push", "me/m"]) == 2
    assert "--push me/m: this repository is public; add --public to upload to it." in capsys.readouterr().err
    assert hub.files == {}
    hub.private = None
    run("export", str(folder), "--push", "me/m", "--public")
    assert hub.private is False
    assert hub.files


def test_a_model_replaces_an_earlier_adapter_but_nothing_else(hub: Hub, folder: Path) -> None:
    old = dict.fromkeys(("adapter_config.json", "adapter_model.safetensors", "merges.txt", "config.json"), b"old")
    shards = {f"model-0000{n}-of-00002.safetensors": b"old" for n in (1, 2)} | {"model.safetensors.index.json": b"old"}
    others = dict.fromkeys((".gitattributes", "LICENSE", "model.gguf", "more/adapter_config.json"), b"mine")
    hub.private, hub.files = True, old | shards | others
    run("export", str(folder), "--push", "me/m")
    assert hub.files == {p.name: p.read_bytes() for p in (folder / "model").iterdir()} | others


def test_a_gguf_file_is_added_to_a_model(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(options: Any) -> Any:
        return lambda backbone, to, source: write_gguf_folder(to)

    monkeypatch.setattr("lit_sft.cli.export._writer", export)
    hub.private, hub.files = True, {"config.json": b"old", "model.safetensors": b"old"}
    run("export", str(folder), "--gguf", "--push", "me/m")
    assert hub.files["config.json"] == hub.files["model.safetensors"] == b"old"
    assert hub.files["model.gguf"] == b"weights"


def test_a_private_repository_is_not_pushed_to_as_public(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private = True
    assert main(["export", str(folder), "--push", "me/m", "--public"]) == 2
    assert "--push me/m: this repository exists and is private; leave out --public, or" in capsys.readouterr().err
    assert hub.files == {}


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ({"whoami": 401}, "the hub does not accept your token: log in again with `hf auth login`, or set HF_TOKEN.\n"),
        (
            {"create": 403},
            "your token may not write there: use one with write access, and a name of yours or of your organisation.",
        ),
        ({"commit": 500}, "the hub answers with status 500"),
    ],
)
def test_refusals_of_the_hub_are_one_line_without_the_token(
    statuses: dict[str, int], message: str, hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.statuses = statuses
    assert main(["export", str(folder), "--push", "me/m"]) == 2
    error = capsys.readouterr().err
    assert f"lit_sft export: --push me/m: {message}" in error
    assert error.count("\n") == 1
    assert "hf_stub" not in error
    assert hub.files == {}
    # refused before the export, or the message says where it is
    assert "whoami" in statuses or f"`hf upload me/m {folder / 'model'}` uploads it later." in error


def test_mistakes_are_refused_before_the_run_is_opened(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def said(*options: str) -> str:
        assert main(["export", str(tmp_path / "no run"), *options]) == 2
        return capsys.readouterr().err.removeprefix("lit_sft export: ").removesuffix("\n")

    assert said("--public") == "--public: has no effect without --push NAME."
    assert said("--push", "a/b/c") == (
        "--push a/b/c: not a name on the hub; expected one such as my-model or my-name/my-model."
    )
    monkeypatch.setattr("lit_sft.cli.pushing.get_token", lambda: None)
    assert said("--push", "m") == "--push m: not logged in to the hub; run `hf auth login`, or set HF_TOKEN."
    monkeypatch.setattr("lit_sft.cli.pushing.get_token", lambda: "hf_stub")
    hub.server.shutdown()
    hub.server.server_close()
    assert said("--push", "m").startswith("--push m: the hub cannot be reached (")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert said("--push", "m") == "--push m: the hub is switched off by HF_HUB_OFFLINE; unset it."
