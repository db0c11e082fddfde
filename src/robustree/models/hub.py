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
    """A file of a repository, fetched into the hub's cache; None where there is no such file or repository.

    With HF_HUB_OFFLINE set, what is not in the cache does not exist.

    Raises:
        ValueError: the hub does not answer.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            return None
        raise _silent(repository, file, error) from error
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None
    except HTTPError as error:
        raise _silent(repository, file, error) from error


def _silent(repository: str, file: str, error: Exception) -> ValueError:
    return ValueError(
        f"the hub does not say whether {repository!r} has {file} ({_reason(error)}): try again, or set "
        "HF_HUB_OFFLINE=1 to use what its cache holds."
    )


def fetch(repository: str) -> Path:
    """The directory in the hub's cache that holds a repository's data files.

    Raises:
        ValueError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(_READABLE)))
    except (HTTPError, OSError) as error:
        raise ValueError(f"{repository!r} could not be fetched ({_reason(error)}): try again.") from error


def upload(directory: Path, repository: str, *, files: tuple[str, ...], public: bool, message: str) -> str:
    """Upload files of a directory as one commit, into a new repository or an old one, and return its address.

    A new repository is private unless `public`. Readers see all the files or none.

    Raises:
        ValueError: the name is not owner/name; nobody is logged in or may write there; the repository is public and
            `public` was not said, or private and it was; the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
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
        additions = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=directory / file) for file in files]
        # Not upload_folder: that may spread the files over several commits.
        hub.create_commit(repository, additions, commit_message=message)
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"nothing was uploaded to {repository!r} ({_reason(error)}): check name, login and network."
        ) from error
    return str(address)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
