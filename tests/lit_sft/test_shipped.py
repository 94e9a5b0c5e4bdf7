"""The configs that come with the project: listed, found by name, copied with all they need."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data_modules.errors import UserError
from lit_sft.__main__ import main
from lit_sft.files import read_yaml
from lit_sft.shipped import ROOT, about, advice_on, copy_shipped, named, needed_by, shipped_configs
from tests.documents import ROOT as CHECKOUT

WORLD = ["conversations.jsonl", "test.json", "train.json", "val.json"]
TOKENIZER = ["examples/tokenizer/tokenizer.json", "examples/tokenizer/tokenizer_config.json"]


def test_every_config_of_the_checkout_is_listed_with_its_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert shipped_configs() == sorted(str(p.relative_to(CHECKOUT)) for p in (CHECKOUT / "configs").rglob("*.yaml"))
    assert about("configs/ablation/lora_targets.yaml") == "Which layers should LoRA adapt?"
    assert about("configs/overlays/bf16.yaml") == "Overlay: bfloat16 computation with float32 weights."
    assert all(len(about(config)) > 10 for config in shipped_configs())
    assert main(["configs"]) == 0
    shown = capsys.readouterr().out
    assert "configs/quickstart.yaml\n    Trains a GPT-2 with 0.8 M weights" in shown


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart", "./configs/quickstart.yaml"])
def test_config_is_found_by_any_spelling(name: str) -> None:
    assert named(name) == "configs/quickstart.yaml"


def test_unknown_config_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="quickstrat: no such config comes with lit_sft; did you mean quickstart"):
        named("quickstrat")


def test_needed_files_are_the_configs_it_builds_on_and_their_data() -> None:
    quickstart = ["configs/quickstart.yaml", *TOKENIZER, *(f"examples/world/{name}" for name in WORLD)]
    assert needed_by(["configs/quickstart.yaml"]) == quickstart
    study = "configs/ablation/loss_masks.yaml"
    assert needed_by([study]) == [study, *quickstart]
    assert needed_by(["configs/overlays/bf16.yaml"]) == ["configs/overlays/bf16.yaml"]


@pytest.mark.parametrize("config", shipped_configs())
def test_every_path_of_the_project_in_a_config_is_copied_with_it(config: str) -> None:
    def paths(value: object) -> set[str]:
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        own = {value} if isinstance(value, str) and value.startswith(("configs/", "examples/")) else set()
        return own.union(*map(paths, parts))

    files = needed_by([config])
    for path in paths(yaml.safe_load((ROOT / config).read_text(encoding="utf-8"))):
        assert (ROOT / path).exists()
        assert any(file == path or file.startswith(f"{path}/") for file in files)


def test_copies_are_equal_and_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "quickstart"]) == 0
    shown = capsys.readouterr().out
    assert "copied  configs/quickstart.yaml" in shown
    assert "next    lit-sft fit --config configs/quickstart.yaml" in shown
    for file in needed_by(["configs/quickstart.yaml"]):
        assert (tmp_path / file).read_bytes() == (ROOT / file).read_bytes()
    assert set(copy_shipped(["configs/quickstart.yaml"], tmp_path).values()) == {False}
    mine = tmp_path / "examples" / "world" / "val.json"
    mine.write_text("[]")
    with pytest.raises(UserError, match=r"val\.json: exists and differs from the file of lit_sft"):
        copy_shipped(["configs/mixture.yaml", "configs/quickstart.yaml"], tmp_path)
    assert mine.read_text() == "[]"
    assert not (tmp_path / "configs" / "mixture.yaml").exists()


def test_missing_config_that_comes_with_the_project_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = "it comes with lit_sft: `lit-sft configs configs/quickstart.yaml` copies it here."
    assert advice_on(Path("configs/quickstart.yaml")) == advice_on(tmp_path / "configs/quickstart.yaml") == expected
    assert advice_on(Path("configs/other.yaml")) == advice_on(Path("quickstart.yaml")) == ""
    assert main(["fit", "--config", "configs/quickstart.yaml"]) == 2
    assert f"configs/quickstart.yaml: no such file; {expected}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"configs/evaluate/prompts\.yaml: no such file; it comes with lit_sft"):
        read_yaml("configs/evaluate/prompts.yaml", advice="")
