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

_Result = TypeVar("_Result")

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

    Args:
        folder: The exported folder.
        name: The repository; created if needed.
        public: Whether anyone may see it.

    Returns:
        Its address.

    Raises:
        UserError: If the hub refuses the upload or cannot be reached, or the repository exists and is public but
            `public` is not set.
    """
    api = HfApi()
    advice = f" The export is in {folder}; `hf upload {name} {folder}` uploads it later."
    url = _asked(lambda: api.create_repo(name, private=not public, exist_ok=True), name, advice)
    if not public and not _asked(lambda: api.model_info(url.repo_id), name, advice).private:
        raise UserError(f"--push {name}: this repository is public; add --public to upload to it.{advice}")
    files = [*listed_digests(folder), DIGESTS, "README.md"]
    _asked(
        lambda: api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=files, commit_message="Exported by lit_sft"
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
