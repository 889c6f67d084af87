"""Files of a Hugging Face repository: what there is by their own library, which knows the user's token.

The bytes come by `download`: the library begins every file anew that was cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ModelUnavailable
from .download import Progress, download, require_space
from .model_file import sha256_of
from .sources import HuggingFaceSource, has_control, is_folder

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_LICENCE = "license:"

Pause = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a file or a folder lies that was fetched, and the licence that its repository states.

    ``at_once``: nothing of it had come before.
    """

    path: Path
    license: str | None
    at_once: bool


def fetch(source: HuggingFaceSource, folder: Path, progress: Progress, pause: Pause) -> Fetched:
    """Fetch the file, or all files of the folder, into ``folder``. What is there of the same commit is gone on with.

    Raises `ModelUnavailable`, and `OSError` where the disk cannot take it.
    """
    try:
        import huggingface_hub
    except ImportError:
        sentence = "a source `hf:` needs the library huggingface_hub; pip install 'edgewise[hf]'"
        raise ModelUnavailable(sentence) from None
    about = _ask(source)
    wanted = [file for file in about.siblings or () if _is_wanted(source, file.rfilename)]
    if not wanted:
        raise ModelUnavailable(f"{source.repository} has no {source.file or 'files'}; compare the names")
    # By the commit that was asked about, so that all are of one version.
    commit = about.sha or source.revision
    home = folder / _only_part(commit)
    _remove_others(folder, home)
    token = huggingface_hub.get_token()
    files = [
        _File(
            huggingface_hub.hf_hub_url(source.repository, file.rfilename, revision=commit),
            home.joinpath(*map(_only_part, file.rfilename.split("/"))),
            file.size or 0,
            None if file.lfs is None else file.lfs.sha256,
            None if token is None else f"Bearer {token}",
        )
        for file in wanted
    ]
    came = sum(file.came() for file in files)
    total, done = sum(file.size for file in files), 0
    require_space(folder, total - came)
    for file in files:
        file.bring(partial(_tell, progress, done, total), pause)
        done += file.size
    return Fetched(home / source.file, _licence(about.tags or ()), at_once=not came)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository and where it comes to lie. ``sha256`` is known of large ones."""

    url: str
    target: Path
    size: int
    sha256: str | None
    authorization: str | None

    def came(self) -> int:
        """How much of it an earlier try left."""
        return self.target.stat().st_size if self.target.is_file() else 0

    def bring(self, progress: Progress, pause: Pause) -> None:
        """Have all of it. Raises `ModelUnavailable` and `OSError`."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if self.came():
            if self.sha256 is not None:
                self._download(progress, pause)
                if sha256_of(self.target, _read) == self.sha256:
                    return
            # Nothing says that its beginning is whole: a power cut may have left a hole.
            self.target.unlink()
        self._download(progress, pause)

    def _download(self, progress: Progress, pause: Pause) -> None:
        if self.came() != self.size or not self.size:
            download(self.url, self.target, progress, pause, pinned=True, authorization=self.authorization)


def _tell(progress: Progress, before: int, whole: int, doing: str, done: int, total: int | None) -> None:
    """Tell of one file as a part of all."""
    progress(doing, before + done, whole)


def _read(chunk: int) -> None:
    """Nobody is told."""


def _ask(source: HuggingFaceSource) -> ModelInfo:
    """What the repository has. Raises `ModelUnavailable`."""
    import huggingface_hub
    from huggingface_hub import errors

    named_wrongly = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)
    try:
        return huggingface_hub.HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
    except named_wrongly as error:
        sentence = f"Hugging Face does not give {source.repository} at {source.revision} ({type(error).__name__})"
        mend = "compare the names, and log in where the model asks for it"
    except errors.HfHubHTTPError as error:
        sentence, mend = f"Hugging Face answers with status {error.response.status_code}", "try again later"
    except Exception as error:  # noqa: BLE001  # its HTTP client's and the system's
        sentence, mend = f"Hugging Face cannot be reached ({type(error).__name__})", "try again when online"
    raise ModelUnavailable(f"{sentence}; {mend}")


def _is_wanted(source: HuggingFaceSource, name: str) -> bool:
    if not is_folder(source):
        return name == source.file
    return name.startswith(source.file) and "/." not in f"/{name}"  # hidden ones are no part of it


def _only_part(part: str) -> str:
    """A part of a path that the repository names. Raises `ModelUnavailable` for one that leads elsewhere."""
    if part in ("", ".", "..") or "/" in part or "\\" in part or not part.isprintable():
        raise ModelUnavailable("the repository names a file that cannot be one; get it from somebody you trust")
    return part


def _remove_others(folder: Path, home: Path) -> None:
    """Remove what an earlier try fetched of another commit."""
    for other in folder.iterdir():
        if other != home:
            shutil.rmtree(other)


def _licence(tags: Iterable[str]) -> str | None:
    said = (tag.removeprefix(_LICENCE) for tag in tags if tag.startswith(_LICENCE))
    return next((licence for licence in said if not has_control(licence)), None)
