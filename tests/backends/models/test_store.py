"""The store of models: fetched, resumed, proven, shared."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import huggingface_hub
import pytest

from edgewise.backends.models import ModelFile, ModelSettings, hugging_face, store_folder
from edgewise.backends.models.store import ModelStore
from edgewise.core.errors import ModelUnavailable

if TYPE_CHECKING:
    from tests.backends.models.conftest import Web

WEIGHTS = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


class Told(list[tuple[str, int, int | None]]):
    """The progress as it was told."""

    def __call__(self, doing: str, done: int, total: int | None) -> None:
        self.append((doing, done, total))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", pause=lambda seconds: None)


def model(source: str, sha256: str | None = SHA256, license_: str | None = None) -> ModelFile:
    return ModelFile("small", ModelSettings(source, sha256, license_), Path.cwd())


def refused(store: ModelStore, file: ModelFile) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        store.add(file, Told())
    assert str(caught.value).startswith("model 'small' ")
    return str(caught.value)


def left_over(store: ModelStore) -> list[str]:
    """What lies in the store besides whole files and their locks."""
    return sorted(path.name for path in (store.folder / "incoming").iterdir() if path.suffix != ".lock")


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


def test_a_connection_that_is_cut_is_taken_up_where_it_ended(store: ModelStore, web: Web) -> None:
    web.cuts = [1_000_000, 300_000]
    assert store.add(model(web.url, sha256=None), Told()).sha256 == SHA256
    assert web.asked == [None, "bytes=1000000-", "bytes=1300000-"]


def test_a_file_that_changes_between_two_parts_is_fetched_from_its_beginning(store: ModelStore, web: Web) -> None:
    web.cuts = [1_000_000]

    def change(seconds: float) -> None:
        web.content, web.mark = WEIGHTS[::-1], '"v2"'

    changing = ModelStore(store.folder, pause=change)
    assert changing.add(model(web.url, sha256=None), Told()).path.read_bytes() == WEIGHTS[::-1]


def test_a_server_without_ranges_gives_the_file_anew(store: ModelStore, web: Web) -> None:
    web.ranges, web.cuts = False, [1_000_000]
    assert store.add(model(web.url), Told()).sha256 == SHA256
    assert web.asked == [None, "bytes=1000000-"]


def test_a_fetch_that_was_given_up_goes_on_at_the_next_try(store: ModelStore, web: Web) -> None:
    web.cuts = [1_000_000, *[0] * 5]
    assert "again and again" in refused(store, model(web.url))
    assert store.entries() == []
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS
    assert web.asked[-1] == "bytes=1000000-"


def test_an_interrupted_process_leaves_what_came_and_nothing_under_its_final_name(store: ModelStore, web: Web) -> None:
    def interrupt(doing: str, done: int, total: int | None) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(model(web.url), interrupt)
    assert store.entries() == []
    store.add(model(web.url), Told())
    assert web.asked[1] is not None


def test_a_fetch_that_ended_whole_before_it_was_placed_is_not_fetched_again(store: ModelStore, web: Web) -> None:
    (store.folder / "incoming").mkdir(parents=True)
    (store.folder / "incoming" / SHA256).write_bytes(WEIGHTS)
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS
    assert web.asked == []


def test_what_is_longer_than_the_servers_file_is_thrown_away(store: ModelStore, web: Web) -> None:
    (store.folder / "incoming").mkdir(parents=True)
    (store.folder / "incoming" / SHA256).write_bytes(WEIGHTS + b"!")
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS


def test_another_file_than_the_pinned_one_is_refused_and_thrown_away(store: ModelStore, web: Web) -> None:
    text = refused(store, model(web.url, sha256="ab" * 32))
    assert SHA256 in text
    assert "ab" * 32 in text
    assert store.entries() == []
    assert left_over(store) == []


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_written(store: ModelStore, web: Web) -> None:
    web.says_length = 1 << 60
    text = refused(store, model(web.url))
    assert "there is no room" in text
    assert "EDGEWISE_MODELS" in text
    assert left_over(store) == []


def test_a_disk_that_is_full_in_the_middle_is_told(store: ModelStore, web: Web) -> None:
    # A limit on the size of files fails like a full disk, for this process and until the test's end.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert "cannot be written (File too large)" in refused(store, model(web.url))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS
    assert web.asked == [None, "bytes=1000000-"]


@pytest.mark.parametrize("part", ["", "bytes 7-9/10", f"bytes {'9' * 5000}-9/10", "no range"])
def test_a_server_that_gives_another_part_than_asked_for_gives_all_of_it(
    store: ModelStore, web: Web, part: str
) -> None:
    web.cuts, web.part = [1_000_000], part or None
    web.headers = {} if part else {"Content-Range": "bytes 0-0/1"}
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS


def test_what_came_of_another_version_before_is_fetched_anew(store: ModelStore, web: Web) -> None:
    (store.folder / "incoming").mkdir(parents=True)
    (store.folder / "incoming" / SHA256).write_bytes(bytes(1_000_000))
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS
    assert web.asked == ["bytes=1000000-", None]


@pytest.mark.parametrize("mark", ["", 'W/"v1"'])
def test_without_a_sum_and_a_mark_two_parts_might_be_of_two_versions(store: ModelStore, web: Web, mark: str) -> None:
    web.cuts, web.mark = [1_000_000], mark
    assert store.add(model(web.url, sha256=None), Told()).sha256 == SHA256
    assert web.asked == [None, None]


def test_a_server_that_restarts_between_two_parts_is_waited_for(store: ModelStore, web: Web) -> None:
    web.cuts, web.statuses = [1_000_000], [200, 503, 502]
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS
    assert len(web.asked) == 4


def test_what_is_sent_in_another_form_is_not_the_file(store: ModelStore, web: Web) -> None:
    web.headers = {"Content-Encoding": "gzip"}
    assert "answers with a file in another form (gzip)" in refused(store, model(web.url, sha256=None))


def test_a_length_that_is_no_number_is_not_heeded(store: ModelStore, web: Web) -> None:
    web.says_length = "9" * 5000
    assert store.add(model(web.url), Told()).path.read_bytes() == WEIGHTS


def test_a_name_that_is_not_ascii_is_asked_for_as_servers_know_it(store: ModelStore, web: Web) -> None:
    assert store.add(model(f"http://{web.address}/modèle 1%20.onnx?a=ü"), Told()).sha256 == SHA256
    assert web.paths == ["/mod%C3%A8le%201%20.onnx?a=%C3%BC"]


@pytest.mark.parametrize("host", ["ex..ample", "a" * 64 + ".example", "models.example:99999"])
def test_an_address_that_is_none_is_refused_before_it_is_asked(store: ModelStore, host: str) -> None:
    assert "cannot read the source" in refused(store, model(f"https://{host}/m.onnx"))


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_server_that_refuses_is_told_with_its_status(store: ModelStore, web: Web, status: int) -> None:
    web.status = status
    assert f"answers with status {status}" in refused(store, model(web.url))
    assert len(web.asked) == 1


def test_offline_it_says_at_once_that_the_server_cannot_be_reached(store: ModelStore) -> None:
    assert "127.0.0.1 cannot be reached (Connection refused)" in refused(store, model("http://127.0.0.1:9/m.bin"))


def test_a_redirect_out_of_tls_is_not_followed(store: ModelStore, web: Web) -> None:
    web.redirect = "http://models.example.com/small.bin"
    assert "answers with status 302" in refused(store, model(web.url))


def test_a_redirect_to_no_address_is_told(store: ModelStore, web: Web) -> None:
    web.redirect = "http://[::no/"
    assert "to what is no address" in refused(store, model(web.url))


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
    store.remove(store.add(model(web.url), Told()))
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
    store.remove(entry)
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
        store.remove(entry)
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
            store.remove(entry)
    assert store.entries() == []
    store.remove(store.add(model(f"file:{many}/", entry.sha256), Told()))
    assert left_over(store) == []
