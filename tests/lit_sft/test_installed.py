"""The command as people install it: a wheel in an environment of its own, started outside of a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import lit_sft
from lit_sft.shipped import needed_by, shipped_configs

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

RUN = """
model:
  backbone:
    config: {{model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 1, n_positions: 128}}
    tokenizer: {root}/examples/tokenizer
data: {{train: {root}/examples/world/val.json, template: chatml, batch_size: 8}}
trainer:
  max_steps: 2
  accelerator: cpu
  enable_progress_bar: false
  callbacks: [{callback}]
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel; its other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    for name in ("lit_sft", "data_modules", "callbacks", "configs", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quiet = ["--quiet", "--no-deps", "--no-index"]
    run_in(folder, *pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", folder, source)
    run_in(folder, sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run_in(folder, *pip, "--python", python, "install", *quiet, *folder.glob("*.whl"))
    packages = run_in(folder, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(packages) / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "venv" / "bin"


def run_in(folder: Path, *command: str | Path, status: int = 0, **variables: str) -> str:
    """Run a command in a folder; what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A user's folder with the names of our packages, and a config that names one of our callbacks."""
    for name in ("callbacks", "data_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("class Mine: pass\nraise RuntimeError('not ours')\n")
    (tmp_path / "run.yaml").write_text(RUN.format(root=ROOT, callback="callbacks.RunHealth"))
    return tmp_path


def starts(installed: Path, name: str) -> tuple[list[str | Path], dict[str, str]]:
    """A command line, and its environment variables."""
    here = {"PYTHONPATH": str(ROOT)}
    return {
        "script": ([installed / "lit-sft"], {}),
        "module": ([installed / "python", "-m", "lit_sft"], {}),
        "checkout": ([sys.executable, "-m", "lit_sft"], here),
    }[name]


def test_version_is_that_of_the_project(installed: Path, tmp_path: Path) -> None:
    version = PYPROJECT["project"]["version"]
    assert lit_sft.__version__ == version
    said = run_in(tmp_path, installed / "lit-sft", "--version")
    assert said.startswith(f"lit_sft {version} ({installed.parent}")
    code = "import importlib.metadata; print(importlib.metadata.version('lit_sft'))"
    assert run_in(tmp_path, installed / "python", "-c", code).strip() == version


@pytest.mark.slow
@pytest.mark.parametrize("start", ["script", "module", "checkout"])
def test_folders_with_the_names_of_our_packages_change_nothing(installed: Path, crowded: Path, start: str) -> None:
    command, variables = starts(installed, start)
    said = run_in(crowded, *command, "fit", "--config", "run.yaml", "--print_config", **variables)
    assert "class_path: callbacks.RunHealth" in said


def test_script_trains_beside_a_file_with_the_name_of_the_program(installed: Path, crowded: Path) -> None:
    (crowded / "lit_sft.py").write_text("raise RuntimeError('not ours')")
    run_in(crowded, installed / "lit-sft", "fit", "--config", "run.yaml")
    assert (crowded / "runs" / "run" / "version_0" / "model" / "model.safetensors").is_file()


def test_other_processes_are_started_beside_a_file_with_the_name_of_the_program(installed: Path, crowded: Path) -> None:
    code = "from lit_sft.own_packages import program; import os; os.execv(program()[0], [*program(), '--version'])"
    assert "lit_sft 0" in run_in(crowded, installed / "python", "-P", "-c", code)
    (crowded / "lit_sft.py").write_text("raise RuntimeError('not ours')")
    assert "lit_sft 0" in run_in(crowded, installed / "python", "-P", "-c", code)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["script", "module", "checkout"])
def test_class_in_a_shadowed_folder_is_an_error_that_names_the_folder(
    installed: Path, crowded: Path, start: str
) -> None:
    (crowded / "run.yaml").write_text(RUN.format(root=ROOT, callback="callbacks.Mine"))
    command, variables = starts(installed, start)
    said = run_in(crowded, *command, "fit", "--config", "run.yaml", status=2, **variables)
    assert "no class callbacks.Mine; callbacks is a package of lit_sft, so your folder" in said
    assert f"{crowded / 'callbacks'} is not read; rename it, for example to my_callbacks" in said
    assert len(said.splitlines()) == 1


def test_module_that_imports_from_a_shadowed_folder_is_an_error_that_names_the_folder(
    installed: Path, crowded: Path
) -> None:
    (crowded / "mine.py").write_text("from callbacks.more import Mine\n")
    (crowded / "run.yaml").write_text(RUN.format(root=ROOT, callback="mine.Mine"))
    said = run_in(crowded, installed / "lit-sft", "fit", "--config", "run.yaml", status=2)
    assert f"no class mine.Mine; callbacks is a package of lit_sft, so your folder {crowded / 'callbacks'}" in said


@pytest.mark.slow
@pytest.mark.parametrize("start", ["script", "module"])
def test_callback_of_the_user_is_found_in_the_working_folder(installed: Path, crowded: Path, start: str) -> None:
    (crowded / "mine.py").write_text("from lightning.pytorch import Callback\nclass Mine(Callback): pass\n")
    (crowded / "run.yaml").write_text(RUN.format(root=ROOT, callback="mine.Mine"))
    command, _ = starts(installed, start)
    assert "class_path: mine.Mine" in run_in(crowded, *command, "fit", "--config", "run.yaml", "--print_config")


def test_program_keeps_its_own_callbacks_and_learns_why_its_data_modules_collide(
    installed: Path, tmp_path: Path
) -> None:
    for name in ("callbacks", "data_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = 1\n")
    own = tmp_path / "own.py"
    own.write_text("import lit_sft, callbacks; assert callbacks.MINE")
    run_in(tmp_path, installed / "python", own)
    for code in (
        "import lit_sft.environment",
        "import data_modules, lit_sft",
    ):
        own.write_text(code)
        said = run_in(tmp_path, installed / "python", own, status=1).splitlines()[-1]
        assert f"ImportError: lit_sft: Python finds {tmp_path / 'data_modules'} under the name data_modules" in said
        assert "Rename yours" in said
    (tmp_path / "data_modules" / "__init__.py").unlink()  # a folder of anything but code
    run_in(tmp_path, installed / "python", own)


def test_shipped_config_is_copied_from_an_install_with_all_it_needs(installed: Path, tmp_path: Path) -> None:
    said = run_in(tmp_path, installed / "lit-sft", "configs", "ablation/loss_masks")
    assert "next    lit-sft ablate --config configs/ablation/loss_masks.yaml" in said
    copied = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == set(needed_by(["configs/ablation/loss_masks.yaml"]))
    assert all((tmp_path / file).read_bytes() == (ROOT / file).read_bytes() for file in copied)
    listed = run_in(tmp_path, installed / "lit-sft", "configs")
    assert [line for line in listed.splitlines() if line.startswith("configs/")] == shipped_configs()


def test_every_package_and_data_file_is_installed(installed: Path) -> None:
    code = "import lit_sft; print(lit_sft.__file__)"
    site = Path(run_in(installed, installed / "python", "-c", code).strip()).parents[1]
    for package in ("lit_sft", "data_modules", "callbacks"):
        files = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()]
        missing = [path for path in files if path.suffix != ".pyc" and not (site / path).is_file()]
        assert missing == []
