from __future__ import annotations

from pathlib import Path

import pytest

from data_modules.encoding.model_names import check_model_name
from data_modules.wording import nearest_path


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "runs/quickstart", "a.b/c-d_e"])
def test_possible_hub_names_are_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_model_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c", "./a", "../a", "/a", "~/a", "a/", "a.ckpt", "a/b.safetensors", "a/b.PT", "C:\\a", "a b",
        "a" * 97, "there/a",
    ],
)  # fmt: skip
def test_impossible_hub_names_are_refused_immediately(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"no such folder.* and not a model name on the hub"):
        check_model_name(name)
    with pytest.raises(ValueError, match="file: this is a file; expected a model folder"):
        check_model_name("file")


def test_nearest_path_is_found_with_and_without_its_suffix(tmp_path: Path) -> None:
    for name in ("loss_masks.yaml", "lora.yaml"):
        (tmp_path / name).touch()
    for given in ("los_masks.yaml", "loss_masks", "loss_masks.yml"):
        assert nearest_path(tmp_path / given) == f"did you mean {tmp_path / 'loss_masks.yaml'}?"
        assert nearest_path(Path("elsewhere") / given, tmp_path) == f"did you mean {tmp_path / 'loss_masks.yaml'}?"
    assert nearest_path(tmp_path / "nothing like it") == ""
    assert nearest_path(tmp_path / "nowhere" / "lora.yaml") == ""
