"""What a user names as a model: a run, a checkpoint, a folder or a hub name; found at once, loaded later."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from data_modules.encoding.model_names import check_model_name
from data_modules.errors import UserError
from data_modules.rendering.templates import TemplateName
from lit_sft.credentials import without_credentials
from lit_sft.files import read_yaml
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.pretrained import check_on_hub
from lit_sft.runs.folders import Run, find_run, paths_of
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.runs.opening import base_of_adapter, check_folder, is_adapter, open_model
from lit_sft.settings.reading import read_settings


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that exists, as far as can be told without loading it.

    Attributes:
        path: What to open: a checkpoint, a folder, or a name on the hub.
        run: The run of the checkpoint, if it is one.
        about: What it is, in words.
    """

    path: str
    run: Run | None
    about: str

    @property
    def name(self) -> str:
        """A short name: that of the run, with the checkpoint's unless it is the default one; else the folder's."""
        if self.run is None:
            path = Path(self.path)
            return path.resolve().name if path.exists() else self.path
        folder = self.run.folder.resolve()
        return f"{folder.parent.name}/{folder.name}{self.run.suffix_of(Path(self.path))}"

    @property
    def is_of_text(self) -> bool:
        """Whether it is a run on plain text, which never saw an answer."""
        if self.run is None:
            return False
        settings = read_yaml(self.run.config, advice="Name another run.")
        return isinstance(settings, dict) and settings.get("data_module") == "text"

    def check(self) -> None:
        """Find mistakes that would otherwise show when the model is loaded, some of them only after a while.

        Raises:
            UserError: If the settings of the run cannot be read, a path in them does not exist here, or a model is
                neither on this machine nor on the hub.
        """
        if self.run is None:
            check_on_hub(base_of_adapter(self.path) if is_adapter(self.path) else self.path)
            return
        with paths_of(self.run):
            settings = read_settings(self.run.config, run_config=self.run.config)
            check_model_paths(settings)
            if pretrained := settings.config.model.backbone["pretrained"]:
                check_on_hub(str(pretrained))

    def load(self, name: str, *, template: TemplateName | None = None, device: str = "auto") -> LoadedModel:
        """Load it.

        Args:
            name: Its name in tables.
            template: Prompt template. None: the one it was trained with, if recorded; else `auto`.
            device: `auto` uses a GPU if there is one.

        Raises:
            UserError: If it cannot be read.
        """
        with paths_of(self.run) if self.run else contextlib.nullcontext():
            return open_model(name, self.path, template=template, device=device)


def split_name(given: str, option: str = "") -> tuple[str, str]:
    """Split `NAME=MODEL`, or a model without a name.

    Args:
        given: As the user wrote it.
        option: What errors begin with, such as `--models `.

    Returns:
        The name, empty if there is none, and the model.

    Raises:
        UserError: If the name or the model is missing.
    """
    name, is_named, model = given.partition("=")
    # checkpoints may have `=` in their names, and addresses in their queries
    if not is_named or "/" in name or os.sep in name or Path(given).exists():
        return "", given
    if not name.strip() or not model:
        raise UserError(
            f"{option}{without_credentials(given)}: expected NAME=MODEL, "
            "such as tuned=runs/quickstart/version_0 base=gpt2."
        )
    return name.strip(), os.path.expanduser(model)  # shells do not expand ~ after `NAME=`


def find_source(named: str | None, root: str = "runs") -> ModelSource:
    """Find a model.

    Args:
        named: A run folder, a checkpoint, a folder with a model or an adapter, a hub name, or None for the newest run.
        root: Folder of all runs.

    Raises:
        UserError: If there is no such run or folder, and it cannot be a name on the hub.
    """
    if named is None or named.endswith(".ckpt") or (Path(named) / "config.yaml").is_file():
        run, checkpoint = find_run(named, root)
        return ModelSource(str(checkpoint), run, f"run {run.folder}, {run.described(checkpoint)}")
    if not is_adapter(named):
        check_folder(named)
        check_model_name(named)
    return ModelSource(named, None, f"model {named}")
