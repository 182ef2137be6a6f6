"""Shared models on the Hugging Face hub: `hf://OWNER/NAME`, perhaps with `@REVISION`."""

import re
from pathlib import Path

from subfuse.errors import ConfigurationError
from subfuse.features.hub_encoders import hub_access, hub_is_reachable
from subfuse.run_folder.names import MANIFEST
from subfuse.sharing.manifest import read_manifest

HUB = "hf://"
_ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[^@]+))?")


def downloaded(address: str) -> Path:
    """Returns the local folder of shared models on the hub; of what is in the local cache, nothing is fetched again.

    Fetched are the manifest and the files that it names, which are safetensors, JSON and the card: nothing of it is
    ever executed. Without a network the cache is used.

    Args:
        address: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`.

    Raises:
        ConfigurationError: It is no address, there is no such model or it holds no shared models, or it can neither be
            fetched nor found in the cache.
        DataError: Its manifest is damaged.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigurationError(f"{address}: an address hf://OWNER/NAME or hf://OWNER/NAME@REVISION is required.")
    try:
        from huggingface_hub import errors, hf_hub_download, snapshot_download
    except ImportError as error:
        raise ConfigurationError(
            f"{address} needs huggingface_hub ({error}). Run: pip install 'subfuse[encoders]'."
        ) from error
    is_reachable = hub_is_reachable()
    try:
        with hub_access(is_reachable):
            manifest = Path(hf_hub_download(found["name"], MANIFEST, revision=found["revision"]))
            commit = manifest.parent.name  # both of one state of the model
            files = [MANIFEST, *read_manifest(manifest.parent).files]
            return Path(snapshot_download(found["name"], revision=commit, allow_patterns=files))
    except errors.GatedRepoError as error:
        problem = "access is granted to you by its owners on the hub, and HF_TOKEN names your token", "gated"
        raise _refused(address, *problem) from error
    except errors.RepositoryNotFoundError as error:
        raise _refused(address, "a model of this name that you may read", "none on the hub") from error
    except errors.RevisionNotFoundError as error:
        raise _refused(address, "a revision that the model has", f"no {found['revision']}") from error
    except errors.LocalEntryNotFoundError as error:
        state = "the hub gave none" if is_reachable else "no network, and nothing in the local cache"
        raise _refused(address, "its files", f"{state}. Connect, or give a folder that was downloaded") from error
    except errors.EntryNotFoundError as error:
        raise _refused(address, f"models that subfuse exported, with {MANIFEST},", "others") from error
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise _refused(address, "its files", reason) from error


def _refused(address: str, required: str, found: str) -> ConfigurationError:
    return ConfigurationError(f"{address}: {required} must be there. Found {found}.")
