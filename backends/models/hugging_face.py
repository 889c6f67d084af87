"""Files of a Hugging Face repository, by their own library, which resumes by itself and knows the user's token."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...core.errors import ModelUnavailable
from .download import require_space
from .sources import HuggingFaceSource, is_folder


def fetch(source: HuggingFaceSource, folder: Path) -> Path:
    """Fetch the file, or all files of the folder, into ``folder``, with the library's own progress bars.

    Returns where it lies. Raises `ModelUnavailable`.
    """
    try:
        import huggingface_hub
    except ImportError:
        sentence = "a source `hf:` needs the library huggingface_hub; pip install 'edgewise[hf]'"
        raise ModelUnavailable(sentence) from None
    try:
        if is_folder(source):
            return _fetch_folder(source, folder)
        url = huggingface_hub.hf_hub_url(source.repository, source.file, revision=source.revision)
        require_space(folder, huggingface_hub.get_hf_file_metadata(url).size or 0)
        return Path(
            huggingface_hub.hf_hub_download(source.repository, source.file, revision=source.revision, local_dir=folder)
        )
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  # the library raises its own, its HTTP client's and the system's
        what = source.file or "the files"
        sentence = f"Hugging Face does not give {what} of {source.repository} ({type(error).__name__})"
        raise ModelUnavailable(f"{sentence}; compare the names, and log in where the model asks for it") from None


def _fetch_folder(source: HuggingFaceSource, folder: Path) -> Path:
    import huggingface_hub

    about = huggingface_hub.HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
    files = [
        file
        for file in about.siblings or ()
        if file.rfilename.startswith(source.file) and "/." not in f"/{file.rfilename}"  # hidden ones are no part of it
    ]
    if not files:
        raise ModelUnavailable(f"{source.repository} has no files in {source.file}; compare the names")
    require_space(folder, sum(file.size or 0 for file in files))
    for file in files:
        # By the commit that was asked about, so that all are of one version.
        huggingface_hub.hf_hub_download(source.repository, file.rfilename, revision=about.sha, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's own notes
    return folder / source.file
