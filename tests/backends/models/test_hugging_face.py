"""Files of a Hugging Face repository."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import huggingface_hub
import pytest

from edgewise.backends.models import hugging_face
from edgewise.backends.models.store import ModelStore

from ._adding import Told, left_over, model, refused
from .conftest import SHA256, WEIGHTS, Web


@dataclass
class Sibling:
    """What Hugging Face's library says of a file."""

    rfilename: str
    size: int
    lfs: SimpleNamespace | None = None


LARGE = Sibling("b.bin", len(WEIGHTS), SimpleNamespace(sha256=SHA256))
"""Of large files it says the sum."""


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Hugging Face's library says of a repository, whose files are all those of the web server."""
    about = SimpleNamespace(sha="c0", siblings=[Sibling("a.onnx", len(WEIGHTS))], tags=None)
    monkeypatch.setattr(hugging_face, "_ask", lambda source: about)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repository, name, revision: f"{web.url}/{revision}/{name}"
    )
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "t0ken")
    return about


def interrupt(doing: str, done: int, total: int | None) -> None:
    if done > 1_000_000:
        raise KeyboardInterrupt


def test_a_repositorys_files_are_taken_up_where_they_were_cut(
    store: ModelStore, web: Web, hub: SimpleNamespace
) -> None:
    hub.siblings = [LARGE]
    with pytest.raises(KeyboardInterrupt):
        store.add(model("hf:owner/name/@main", sha256=None), interrupt)
    told = Told()
    store.add(model("hf:owner/name/@main", sha256=None), told)
    assert web.asked[0] is None
    assert web.asked[1] is not None
    assert ("fetching", len(WEIGHTS), len(WEIGHTS)) in told
    assert left_over(store) == []


def test_a_beginning_that_is_not_the_repositorys_is_fetched_anew(
    store: ModelStore, web: Web, hub: SimpleNamespace
) -> None:
    hub.siblings = [LARGE]
    with pytest.raises(KeyboardInterrupt):
        store.add(model("hf:owner/name/@main", sha256=None), interrupt)
    (cut,) = (store.folder / "incoming").rglob("b.bin")
    cut.write_bytes(bytes(cut.stat().st_size))  # as a power cut leaves it
    entry = store.add(model("hf:owner/name/@main", sha256=None), Told())
    assert (entry.path / "b.bin").read_bytes() == WEIGHTS


def test_what_was_fetched_of_one_version_is_no_part_of_the_next(
    store: ModelStore, web: Web, hub: SimpleNamespace
) -> None:
    """The branch may have moved on since."""
    hub.siblings = [Sibling("old.onnx", len(WEIGHTS)), Sibling("older.onnx", len(WEIGHTS))]
    web.cuts = [len(WEIGHTS), 10]
    with pytest.raises(KeyboardInterrupt):
        store.add(model("hf:owner/name/@main", sha256=None), interrupt)
    hub.sha, hub.siblings = "c1", [Sibling("new.onnx", len(WEIGHTS))]
    web.cuts = []
    entry = store.add(model("hf:owner/name/@main", sha256=None), Told())
    assert [path.name for path in entry.path.iterdir()] == ["new.onnx"]
    assert left_over(store) == []


@pytest.mark.parametrize("name", ["/etc/evil", "sub/\x00", "a\\b", "a\nb", "sub//b"])
def test_a_repository_that_names_what_is_no_file_of_its_own_is_refused(
    store: ModelStore, hub: SimpleNamespace, name: str
) -> None:
    hub.siblings = [Sibling(name, 1)]
    assert "names a file that cannot be one" in refused(store, model("hf:owner/name/@main"))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_users_token_goes_to_the_hub_alone(
    store: ModelStore, web: Web, hub: SimpleNamespace, elsewhere: bool
) -> None:
    """Not to the servers that it sends to for the bytes."""
    web.redirect_once = f"{web.url.replace('127.0.0.1', 'localhost') if elsewhere else web.url}/moved"
    store.add(model("hf:owner/name/a.onnx@main"), Told())
    assert web.logins == ["Bearer t0ken", None if elsewhere else "Bearer t0ken"]
