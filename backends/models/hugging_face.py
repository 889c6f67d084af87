"""Files of a Hugging Face repository, by their own library, which resumes by itself and knows the user's token."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ModelUnavailable
from .download import require_space
from .sources import HuggingFaceSource, is_folder

_LICENCE = "license:"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a file or a folder lies that was fetched, and the licence that its repository states."""

    path: Path
    license: str | None


def fetch(source: HuggingFaceSource, folder: Path) -> Fetched:
    """Fetch the file, or all files of the folder, into ``folder``, with the library's own progress bars.

    Raises `ModelUnavailable`, and `OSError` where the disk cannot take it.
    """
    try:
        import huggingface_hub
    except ImportError:
        sentence = "a source `hf:` needs the library huggingface_hub; pip install 'edgewise[hf]'"
        raise ModelUnavailable(sentence) from None
    try:
        about = huggingface_hub.HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in about.siblings or () if _is_wanted(source, file.rfilename)}
        if not sizes:
            raise ModelUnavailable(f"{source.repository} has no {source.file or 'files'}; compare the names")
        require_space(folder, sum(sizes.values()) - _came(folder))
        for name in sizes:
            # By the commit that was asked about, so that all are of one version.
            huggingface_hub.hf_hub_download(source.repository, name, revision=about.sha, local_dir=folder)
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  # the library raises its own, its HTTP client's and the system's
        raise _failure(source, error) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's own notes
    return Fetched(folder / source.file, _licence(about.tags or ()))


def _is_wanted(source: HuggingFaceSource, name: str) -> bool:
    if not is_folder(source):
        return name == source.file
    return name.startswith(source.file) and "/." not in f"/{name}"  # hidden ones are no part of it


def _came(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _licence(tags: Iterable[str]) -> str | None:
    return next((tag.removeprefix(_LICENCE) for tag in tags if tag.startswith(_LICENCE)), None)


def _failure(source: HuggingFaceSource, error: Exception) -> Exception:
    from huggingface_hub import errors

    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk's
    nothing_there = (
        errors.EntryNotFoundError,
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    )
    kind = type(error).__name__
    if isinstance(error, nothing_there):
        sentence = f"Hugging Face does not give {source.file or 'the files'} of {source.repository} ({kind})"
        return ModelUnavailable(f"{sentence}; compare the names, and log in where the model asks for it")
    if isinstance(error, errors.HfHubHTTPError):
        return ModelUnavailable(f"Hugging Face answers with status {error.response.status_code}; try again later")
    return ModelUnavailable(f"Hugging Face cannot be reached ({kind}); try again when online")
