"""The store of models: proven, placed, shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgewise.backends.models import store_folder
from edgewise.backends.models.store import ModelStore
from edgewise.core.errors import ModelUnavailable

from ._adding import Told, left_over, model, refused
from .conftest import SHA256, WEIGHTS, Web


def test_a_file_is_fetched_proven_and_told_of(store: ModelStore, web: Web) -> None:
    told = Told()
    entry = store.add(model(web.url, license_="apache-2.0"), told)
    assert entry.path.read_bytes() == WEIGHTS
    assert entry.path == store.folder / SHA256
    assert (entry.license, entry.source, entry.size) == ("apache-2.0", web.url, len(WEIGHTS))
    assert store.entries() == [entry]
    assert ("fetching", len(WEIGHTS), len(WEIGHTS)) in told
    assert ("proving", len(WEIGHTS), len(WEIGHTS)) in told
    assert left_over(store) == []


def test_what_is_here_is_not_fetched_again(store: ModelStore, web: Web) -> None:
    store.add(model(web.url), Told())
    store.add(model("https://elsewhere.example/other-name.bin"), Told())
    assert len(web.asked) == 1


def test_an_altered_file_of_the_store_is_found_and_fetched_again(store: ModelStore, web: Web) -> None:
    entry = store.add(model(web.url), Told())
    assert not store.altered(entry, Told())
    entry.path.write_bytes(WEIGHTS[::-1])
    assert store.altered(entry, Told())
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS


def test_a_file_from_a_stick_stands_for_the_same_file_from_the_web(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "stick.bin").write_bytes(WEIGHTS)
    store.add(model(f"file:{tmp_path}/stick.bin", sha256=None), Told())
    (tmp_path / "stick.bin").unlink()
    assert store.add(model("https://models.example.com/small.bin"), Told()).path.read_bytes() == WEIGHTS


def test_a_label_of_the_store_is_never_fetched(store: ModelStore) -> None:
    says = "is not in the store, or no longer what it was; bring it by `edgewise models add"
    assert says in refused(store, model("store:small.bin"))
    (store.folder / SHA256).write_bytes(b"altered")
    assert says in refused(store, model("store:small.bin"))


def test_two_who_want_the_same_file_fetch_it_once(store: ModelStore, web: Web) -> None:
    web.hold = threading.Event()
    waits = threading.Event()

    def told(doing: str, done: int, total: int | None) -> None:
        if doing == "waiting":
            waits.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.add, model(web.url), Told())
        assert web.arrived.wait(10)
        second = pool.submit(ModelStore(store.folder).add, model(web.url), told)
        assert waits.wait(10)
        web.hold.set()
        assert first.result(10) == second.result(10)
    assert len(web.asked) == 1


def test_a_lock_ends_with_the_process_that_held_it(store: ModelStore, web: Web) -> None:
    web.hold = threading.Event()
    program = (
        "import sys; from pathlib import Path\n"
        "from edgewise.backends.models import ModelFile, ModelSettings\n"
        "from edgewise.backends.models.store import ModelStore\n"
        "file = ModelFile('small', ModelSettings(sys.argv[2], sys.argv[3]), Path())\n"
        "ModelStore(Path(sys.argv[1])).add(file, lambda *told: None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, store.folder, web.url, SHA256]) as process:
        assert web.arrived.wait(20)
        process.kill()
    web.hold.set()
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS


def test_a_removed_file_is_gone_with_its_notes(store: ModelStore, web: Web) -> None:
    store.remove(store.add(model(web.url), Told()), Told())
    assert store.entries() == []
    assert [path.name for path in store.folder.iterdir()] == ["incoming"]


def test_files_without_notes_and_files_of_strangers_do_no_harm(store: ModelStore, web: Web) -> None:
    entry = store.add(model(web.url), Told())
    entry.path.with_suffix(".json").write_text(json.dumps(["no notes"]))
    (store.folder / "README").write_text("a stranger's")
    assert [(each.source, each.license) for each in store.entries()] == [("unknown", None)]


def test_the_folder_is_the_one_named_or_the_users_cache() -> None:
    assert store_folder({"EDGEWISE_MODELS": "/models"}) == Path("/models")
    if sys.platform == "linux":
        assert store_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/edgewise/models")
        assert store_folder({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/edgewise/models"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = refused(ModelStore(tmp_path / "file" / "store"), model("https://models.example.com/m.bin"))
    assert f"cannot be stored in {tmp_path}/file/store: {os.strerror(20)}" in text


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of several files, one of them in a folder of its own."""
    (tmp_path / "many" / "sub").mkdir(parents=True)
    (tmp_path / "many" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "many" / "sub" / "weights").write_bytes(WEIGHTS)
    (tmp_path / "many" / ".hidden").write_bytes(b"no part of it")
    return tmp_path / "many"


def test_a_folder_is_stored_whole_under_the_sum_of_all_its_files(
    store: ModelStore, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_MODELS", str(store.folder))
    told = Told()
    entry = store.add(model(f"file:{many}/", sha256=None), told)
    assert (entry.path / "sub" / "weights").read_bytes() == WEIGHTS
    assert not (entry.path / ".hidden").exists()
    assert store.entries() == [entry]
    assert entry.size == len(WEIGHTS) + 5
    assert ("copying", entry.size, entry.size) in told
    assert left_over(store) == []
    kept = model("store:many/", entry.sha256)
    assert kept.verify() == entry.path / "model.onnx"
    assert store.add(kept, Told()) == entry
    (entry.path / "sub" / "weights").write_bytes(WEIGHTS[::-1])
    assert store.altered(entry, Told())
    with pytest.raises(ModelUnavailable, match="is altered"):
        kept.verify()
    # What is altered is replaced.
    assert not store.altered(store.add(model(f"file:{many}/", entry.sha256), Told()), Told())
    store.remove(entry, Told())
    assert store.entries() == []


def test_a_good_folder_that_comes_again_stands_all_the_time(store: ModelStore, many: Path) -> None:
    entry = store.add(model(f"file:{many}/", sha256=None), Told())
    before = entry.path.stat().st_ino
    again = store.add(model(f"file:{many}/", sha256=None, license_="mit"), Told())
    assert again.license == "mit"
    assert store.add(model(f"file:{many}/", sha256=None), Told()).license == "mit"
    assert again.path.stat().st_ino == before
    assert left_over(store) == []


def test_one_folder_that_comes_with_its_sum_and_without_is_placed_by_one_after_the_other(
    store: ModelStore, many: Path
) -> None:
    sha256 = ModelStore(store.folder.with_name("other")).add(model(f"file:{many}/", sha256=None), Told()).sha256
    copying, unpinned_waits = threading.Event(), threading.Event()

    def pinned(doing: str, done: int, total: int | None) -> None:
        if doing == "copying":
            copying.set()
            assert unpinned_waits.wait(10)

    def unpinned(doing: str, done: int, total: int | None) -> None:
        if doing == "waiting":
            unpinned_waits.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.add, model(f"file:{many}/", sha256), pinned)
        assert copying.wait(10)
        second = pool.submit(ModelStore(store.folder).add, model(f"file:{many}/", sha256=None), unpinned)
        assert first.result(20).path == second.result(20).path
    assert left_over(store) == []


def test_anybody_can_make_the_sum_of_a_folder_with_links(store: ModelStore, many: Path) -> None:
    (many / "model.onnx").rename(many.parent / "blob")
    (many / "model.onnx").symlink_to(many.parent / "blob")
    (many / "folder").symlink_to(many / "sub")
    (many / "broken").symlink_to(many / "nothing")
    documented = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    (command,) = (line for line in documented.splitlines() if line.startswith("find * "))
    printed = subprocess.run(command, shell=True, cwd=many, check=True, capture_output=True, text=True).stdout
    assert store.add(model(f"file:{many}/", sha256=None), Told()).sha256 == printed.split()[0]


def test_a_folder_that_is_not_the_pinned_one_is_thrown_away(store: ModelStore, many: Path) -> None:
    assert "is not what it should be" in refused(store, model(f"file:{many}/", sha256="ab" * 32))
    assert store.entries() == []
    assert left_over(store) == []


def test_an_emptied_folder_of_the_store_is_altered_and_comes_again(store: ModelStore, many: Path) -> None:
    entry = store.add(model(f"file:{many}/", sha256=None), Told())
    for file in (entry.path / "model.onnx", entry.path / "sub" / "weights"):
        file.unlink()
    assert store.altered(entry, Told())
    assert not store.altered(store.add(model(f"file:{many}/", entry.sha256), Told()), Told())


def test_a_copy_that_was_interrupted_begins_anew_without_what_it_had(store: ModelStore, many: Path) -> None:
    def interrupt(doing: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    whole = model(f"file:{many}/", sha256=None)
    with pytest.raises(KeyboardInterrupt):
        store.add(whole, interrupt)
    assert store.entries() == []
    (many / "model.onnx").rename(many / "renamed.onnx")
    assert sorted(path.name for path in store.add(whole, Told()).path.iterdir()) == ["renamed.onnx", "sub"]


def test_a_copy_larger_than_the_disk_is_refused_before_a_byte_is_written(store: ModelStore, tmp_path: Path) -> None:
    with (tmp_path / "sparse.bin").open("wb") as sparse:
        sparse.truncate(shutil.disk_usage(tmp_path).free + 1)
    assert "cannot be copied: there is no room" in refused(store, model(f"file:{tmp_path}/sparse.bin"))
    assert left_over(store) == []


def test_a_copy_that_does_not_fit_leaves_the_disk_as_it_was(store: ModelStore, many: Path) -> None:
    (many / "unreadable").symlink_to("/proc/self/mem")
    assert "cannot be stored in" in refused(store, model(f"file:{many}/", sha256=None))
    assert left_over(store) == []


def test_what_is_in_a_store_that_cannot_be_written_is_there(store: ModelStore, web: Web, tmp_path: Path) -> None:
    store.add(model(web.url), Told())
    shutil.rmtree(store.folder / "incoming")
    (store.folder / "incoming").touch()  # as a store on a read-only disk
    assert store.add(model("https://models.example.com/small.bin"), Told()).sha256 == SHA256
    (entry,) = store.entries()
    with pytest.raises(ModelUnavailable, match="cannot be taken out of"):
        store.remove(entry, Told())
    assert store.entries() == [entry]


@pytest.mark.parametrize("at", range(3))
def test_an_altered_folder_is_replaced_though_a_process_dies_at_any_step(
    store: ModelStore, many: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    entry = store.add(model(f"file:{many}/", sha256=None), Told())
    (entry.path / "model.onnx").write_bytes(b"altered")
    true_replace, steps = os.replace, []

    def replace(source: Path, target: Path) -> None:
        steps.append(target)
        if len(steps) == at + 1:
            raise KeyboardInterrupt
        true_replace(source, target)

    with monkeypatch.context() as dying:
        dying.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            store.add(model(f"file:{many}/", entry.sha256), Told())
    # Whoever brought it may be gone: what was proven is not asked for again.
    shutil.rmtree(many)
    assert not store.altered(store.add(model(f"file:{many}/", entry.sha256), Told()), Told())
    assert left_over(store) == []


def test_a_folder_is_removed_at_once_and_not_file_by_file(
    store: ModelStore, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.add(model(f"file:{many}/", sha256=None), Told())

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            store.remove(entry, Told())
    assert store.entries() == []
    store.remove(store.add(model(f"file:{many}/", entry.sha256), Told()), Told())
    assert left_over(store) == []
