"""Uploads an exported folder to the Hugging Face hub: only what was exported, to a private repository by default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data_modules.digests import DIGESTS, listed_digests
from data_modules.errors import UserError
from data_modules.wording import reason_of
from lit_sft.gguf.writing import MODEL
from lit_sft.models.saving import WRITTEN

_Result = TypeVar("_Result")

_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json")
_OF_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

_REASONS = {
    401: "the hub does not accept your token: log in again with `hf auth login`, or set HF_TOKEN",
    403: "your token may not write there: use one with write access, and a name of yours or of your organisation",
    404: "the hub has no such user or organisation, or not for you: check the name",
}


def check_push(name: str) -> None:
    """Refuse an upload that cannot work, before anything is exported. Asks the hub one question.

    Args:
        name: The repository, `name` or `user/name`.

    Raises:
        UserError: If the name is impossible, there is no token or an invalid one, or the hub cannot be reached.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(
            f"--push {name}: not a name on the hub; expected one such as my-model or my-name/my-model."
        ) from None
    if constants.is_offline_mode():
        raise UserError(f"--push {name}: the hub is switched off by HF_HUB_OFFLINE; unset it.")
    if not get_token():
        raise UserError(f"--push {name}: not logged in to the hub; run `hf auth login`, or set HF_TOKEN.")
    _asked(lambda: HfApi().whoami(), name)


def push(folder: Path, name: str, *, public: bool) -> str:
    """Upload the files that an export wrote; other files in the folder stay here.

    A model or adapter replaces an earlier one in the repository, because transformers would load the files of both. A
    GGUF file is added to what is there.

    Args:
        folder: The exported folder.
        name: The repository; created if needed.
        public: Whether anyone may see it.

    Returns:
        Its address.

    Raises:
        UserError: If the hub refuses the upload or cannot be reached, or the repository exists and is public but
            `public` is not set, or the reverse.
    """
    api = HfApi()
    advice = f" The export is in {folder}; `hf upload {name} {folder}` uploads it later."
    url = _asked(lambda: api.create_repo(name, private=not public, exist_ok=True), name, advice)
    is_private = _asked(lambda: api.model_info(url.repo_id), name, advice).private
    if not public and not is_private:
        raise UserError(f"--push {name}: this repository is public; add --public to upload to it.{advice}")
    if public and is_private:
        raise UserError(
            f"--push {name}: this repository exists and is private; leave out --public, or make it public in its "
            f"settings on the hub.{advice}"
        )
    files = [*listed_digests(folder), DIGESTS, "README.md"]
    old = None if MODEL in files else [*WRITTEN, *_WEIGHTS, *_OF_ADAPTER]
    _asked(
        lambda: api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=old,
            commit_message="Exported by lit_sft",
        ),
        name,
        advice,
    )
    return str(url)


def _asked(ask: Callable[[], _Result], name: str, advice: str = "") -> _Result:
    """The hub's answer.

    Raises:
        UserError: If there is none, or it is a refusal.
    """
    try:
        return ask()
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = _REASONS.get(status, f"the hub answers with status {status} ({reason_of(error)})")
        raise UserError(f"--push {name}: {reason}.{advice}") from None
    except Exception as error:  # depends on the library under the hub's client
        raise UserError(
            f"--push {name}: the hub cannot be reached ({reason_of(error)}); check the connection.{advice}"
        ) from None
