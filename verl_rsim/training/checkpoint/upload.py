"""Uploads exported policies to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from verl_rsim.core.policy_description import POLICY_FILE, read_description
from verl_rsim.training.checkpoint.model_card import write_model_card
from verl_rsim.utils.errors import ConfigError


def upload_policies(folders: Mapping[str, Path], name: str, *, private: bool = False) -> dict[str, str]:
    """Uploads each policy's folder to a repository of its own, whose id its model card then names.

    Args:
        folders: folder of each role, as :func:`verl_rsim.training.checkpoint.export.export_policies` returns them.
        name: ``USER/NAME``; with several policies each repository is ``USER/NAME-ROLE``.
        private: only you can see repositories that are made here; those that exist stay as they are.

    Returns:
        The URL of each role's repository.

    Raises:
        ConfigError: the hub cannot be reached, or does not take the name or the upload.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    if name.count("/") != 1:
        raise ConfigError("--hub", name, "name the repository as USER/NAME")
    api, urls = HfApi(), {}
    for role, folder in folders.items():
        repository = name if len(folders) == 1 else f"{name}-{role}"
        if (folder / POLICY_FILE).is_file():
            write_model_card(folder, read_description(folder / POLICY_FILE, role, str(folder)), repository)
        try:
            urls[role] = str(api.create_repo(repository, private=private, exist_ok=True))
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Trained {role} of verl-rsim")
        except (HFValidationError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            fix = f"cannot be uploaded ({reason}); log in with `hf auth login` and name a repository of yours"
            raise ConfigError("--hub", repository, fix) from None
    return urls
