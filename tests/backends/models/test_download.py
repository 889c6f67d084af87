"""A file from a web server: resumed, and never another one than was asked for."""

from __future__ import annotations

import resource
import signal

import pytest

from edgewise.backends.models.store import ModelStore

from ._adding import Told, left_over, model, refused
from .conftest import SHA256, WEIGHTS, Web


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
    (begun,) = store.unfinished()
    assert begun.sha256 == SHA256
    assert 0 < begun.size < len(WEIGHTS)
    store.add(model(web.url), Told())
    assert web.asked[1] is not None
    assert store.unfinished() == []


def test_what_came_of_a_fetch_that_is_not_wanted_any_more_can_be_removed(store: ModelStore, web: Web) -> None:
    web.cuts = [1_000_000, *[0] * 5]
    refused(store, model(web.url))
    (begun,) = store.unfinished()
    store.remove(begun, Told())
    assert store.unfinished() == []
    assert left_over(store) == []


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
    assert "only https, or this device" in refused(store, model(web.url))


def test_a_redirect_to_no_address_is_told(store: ModelStore, web: Web) -> None:
    web.redirect = "http://[::no/"
    assert "to what is no address" in refused(store, model(web.url))
