"""What proves a model of several files: one sum over the names and the sums of all of them.

It is the sha256 of what ``sha256sum`` prints for the files in the order of their names, so that anybody can make it:
``find * -xtype f -not -path '*/.*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.errors import ModelUnavailable

_MOST_FILES = 10_000


def names_in(folder: Path) -> list[str]:
    """The files of a folder and of those in it, as paths from there, sorted by their bytes.

    Hidden ones are no part of a model. Links to files are files; those to folders are not followed. Raises
    `ModelUnavailable` for a folder that is no model's, and `OSError`.
    """
    names = []
    for name in _walk(folder):
        names.append(name)
        if len(names) > _MOST_FILES:
            raise ModelUnavailable(f"{folder} has more than {_MOST_FILES:,} files; name the folder of one model alone")
        if "\n" in name or "\\" in name or not _is_unicode(name):
            raise ModelUnavailable(f"{folder} has a file whose name holds a line break, a backslash or no Unicode")
    if not names:
        raise ModelUnavailable(f"{folder} has no files")
    return sorted(names, key=str.encode)


def digest_of(sums: Iterable[tuple[str, str]]) -> str:
    """The sum over a model's files, each by its name and its own sum, in the order of `names_in`."""
    digest = hashlib.sha256()
    for name, sha256 in sums:
        digest.update(f"{sha256}  {name}\n".encode())
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    for path, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            whole = Path(path, file)
            if not file.startswith(".") and whole.is_file():
                yield whole.relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
