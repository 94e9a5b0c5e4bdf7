from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.settings import logger_names
from lit_sft.settings.logger_names import DEFAULT, check_loggers, in_short_form, named_loggers, with_named_loggers

CSV_IN = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("CSVLogger", ["csv"]),
        ("csv", ["csv"]),
        ("lightning.pytorch.loggers.WandbLogger", ["wandb"]),
        ({"class_path": "MLFlowLogger"}, ["mlflow"]),
        (["TensorBoardLogger", "CSVLogger"], ["tensorboard", "csv"]),
        (CSV_IN, None),
        (["CSVLogger", CSV_IN], None),
        (["CSVLogger", "mine.CSVLogger"], None),
        ("NeptuneLogger", None),
        ([], None),
        (True, None),
        (None, None),
    ],
)
def test_loggers_without_settings_have_short_names(value: Any, names: list[str] | None) -> None:
    assert named_loggers(value) == names


def test_option_of_lightning_becomes_ours_unless_it_has_settings() -> None:
    short = ["fit", "--trainer.logger=true", "--run.loggers=[tensorboard,csv]", "--trainer.max_steps", "5"]
    names = "[TensorBoardLogger, CSVLogger]"
    assert in_short_form(["fit", "--trainer.logger", names, "--trainer.max_steps", "5"]) == short
    assert in_short_form(["fit", f"--trainer.logger={names}", "--trainer.max_steps", "5"]) == short
    for other in (
        ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"],
        ["--trainer.logger=false"],
        ["--trainer.logger=my.Logger"],
        ["--trainer.logger"],
    ):
        assert in_short_form(other)[-1] == other[-1]
        assert "run.loggers" not in "".join(in_short_form(other))


@pytest.mark.parametrize("ours", [["--run.loggers", "[wandb]"], ["--run.loggers=wandb"]])
def test_loggers_named_by_both_options_are_refused(ours: list[str]) -> None:
    theirs = ["--trainer.logger", "CSVLogger"]
    for arguments in (ours + theirs, theirs + ours):
        with pytest.raises(UserError, match=r"--trainer.logger CSVLogger and --run.loggers both name loggers"):
            in_short_form(arguments)
    assert in_short_form(["--trainer.logger", "true", "--run.loggers=[csv]"])[-1] == "--run.loggers=[csv]"


def test_single_logger_needs_no_brackets() -> None:
    assert in_short_form(["--run.loggers", "csv", "--run.name", "csv"])[:2] == ["--run.loggers", "[csv]"]
    assert in_short_form(["--run.loggers=csv"]) == ["--run.loggers=[csv]"]
    assert in_short_form(["--run.loggers", "comet", "--run.name", "csv"])[1::2] == ["comet", "csv"]
    assert with_named_loggers({"run": {"loggers": "csv"}}, "c.yaml") == {"run": {"loggers": ["csv"]}}


def test_setting_of_a_config_becomes_ours() -> None:
    given = {"trainer": {"logger": "CSVLogger", "max_steps": 5}, "run": {"name": "mine"}}
    expected = {"trainer": {"logger": True, "max_steps": 5}, "run": {"name": "mine", "loggers": ["csv"]}}
    assert with_named_loggers(given, "c.yaml") == expected
    assert with_named_loggers({"trainer": {"logger": CSV_IN}}, "c.yaml") == {"trainer": {"logger": CSV_IN}}
    with pytest.raises(UserError, match=r"c\.yaml: trainer\.logger and run.loggers both name loggers"):
        with_named_loggers({**given, "run": {"loggers": ["csv"]}}, "c.yaml")


@pytest.mark.parametrize(("logger", "what"), [(False, "turns off all"), ([CSV_IN], "names the loggers of the run")])
def test_setting_that_another_one_overrides_is_refused(logger: Any, what: str) -> None:
    check_loggers(DEFAULT, logger)
    with pytest.raises(UserError, match=rf"--run.loggers \[csv\] and --trainer.logger are both set, .* {what}"):
        check_loggers(("csv",), logger)


def test_logger_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"--run.loggers \[csv, csv\]: each at most once"):
        check_loggers(("csv", "csv"), True)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(logger_names, "version", version)
    check_loggers(("tensorboard", "csv"), True)
    with pytest.raises(UserError, match=f"the logger {name} needs the package {name}.*`pip install {name}`"):
        check_loggers(("tensorboard", name), None)


def test_smaller_package_of_mlflow_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package != "mlflow-skinny":
            raise PackageNotFoundError(package)
        return "3.0"

    monkeypatch.setattr(logger_names, "version", version)
    check_loggers(("mlflow",), True)
