"""Fetches single small files of models at the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path


def hub_file(repository: str, name: str) -> Path | None:
    """Returns one file of a model at the hub, downloaded or from the local cache; no other file is fetched.

    Args:
        repository: id of a model, e.g. ``Qwen/Qwen2.5-0.5B-Instruct``.
        name: path of the file in the repository.

    Returns:
        The file, or None if the repository does not have it, does not exist, or cannot be reached. Loading the model
        itself reports the last two.
    """
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError

    try:
        # A download tries again for half a minute where the hub cannot be reached; this request does not.
        get_hf_file_metadata(hf_hub_url(repository, name))
        return Path(hf_hub_download(repository, name))
    except (RemoteEntryNotFoundError, HFValidationError):
        return None
    except (httpx.HTTPError, OSError):  # also the hub's own errors, and its offline mode
        cached = try_to_load_from_cache(repository, name)
        return Path(cached) if isinstance(cached, str) else None
