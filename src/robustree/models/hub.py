"""The Hugging Face hub: files of a repository, whole repositories, and uploads in one commit.

huggingface_hub is imported on first use, and its settings hold: HF_ENDPOINT, HF_TOKEN or `hf auth login`,
HF_HUB_OFFLINE."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_READABLE = ("*.json", "*.safetensors", "*.txt", "*.md", "*.svg")
"""What a checkpoint may consist of; pickles and code of a repository are never fetched."""


def is_repository(name: str) -> bool:
    """Whether a name can only be owner/name at the hub: no such file or directory is here."""
    return bool(_NAME.fullmatch(name)) and not Path(name).exists()


def find_file(repository: str, file: str) -> Path | None:
    """A file of a repository, fetched into the hub's cache; None where there is none, or none can be reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(repository, file))
    except (EntryNotFoundError, HfHubHTTPError):
        return None


def fetch(repository: str) -> Path:
    """The directory in the hub's cache that holds a repository's data files.

    Raises:
        ValueError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(_READABLE)))
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"{repository!r} could not be fetched ({_reason(error)}): try again.") from error


def upload(directory: Path, repository: str, *, files: tuple[str, ...], public: bool, message: str) -> str:
    """Upload files of a directory as one commit, into a new repository or an old one, and return its address.

    A new repository is private unless `public`. One commit: readers see all the files or none.

    Raises:
        ValueError: the name is not owner/name; nobody is logged in or may write there; the repository is public and
            `public` was not said, or private and it was; the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    if not _NAME.fullmatch(repository):
        raise ValueError(f"{repository!r} is no repository: write owner/name.")
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=not public, exist_ok=True)
        if hub.model_info(repository).private == public:
            seen, meant = ("private", "public") if public else ("public", "private")
            raise ValueError(
                f"{repository!r} exists and is {seen}; this upload is meant to be {meant}: "
                f"{'leave --public out' if public else 'add --public'}, or choose another name."
            )
        hub.upload_folder(repo_id=repository, folder_path=directory, allow_patterns=list(files), commit_message=message)
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"nothing was uploaded to {repository!r} ({_reason(error)}): check name, login and network."
        ) from error
    return str(address)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
