"""A file of a Hugging Face repository, by their own library, which resumes by itself and knows the user's token."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import ModelUnavailable
from .download import require_space
from .sources import HuggingFaceSource


def fetch(source: HuggingFaceSource, folder: Path) -> Path:
    """Fetch the file into ``folder``, with the library's own progress bar. Raises `ModelUnavailable`."""
    try:
        import huggingface_hub
    except ImportError:
        sentence = "a source `hf:` needs the library huggingface_hub; pip install 'edgewise[hf]'"
        raise ModelUnavailable(sentence) from None
    try:
        url = huggingface_hub.hf_hub_url(source.repository, source.file, revision=source.revision)
        require_space(folder, huggingface_hub.get_hf_file_metadata(url).size or 0)
        return Path(
            huggingface_hub.hf_hub_download(source.repository, source.file, revision=source.revision, local_dir=folder)
        )
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  # the library raises its own, its HTTP client's and the system's
        sentence = f"Hugging Face does not give {source.file} of {source.repository} ({type(error).__name__})"
        raise ModelUnavailable(f"{sentence}; compare the names, and log in where the model asks for it") from None
