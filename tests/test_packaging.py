"""What is installed is what lies on the disk, under one name, with its types and its data."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import edgewise

ROOT = Path(__file__).parent.parent
FOLDERS = ("backends", "core", "policies", "protos", "router")


def packages_on_disk() -> set[str]:
    found = {"edgewise"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT)
            if "_root" not in inner.parts:
                found.add("edgewise." + ".".join(inner.parts))
    return found


def test_every_package_on_the_disk_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_all_is_every_extra_for_users() -> None:
    extras: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    everything = re.findall(r"edgewise\[([a-z,-]+)\]", " ".join(extras["all"]))
    assert set(",".join(everything).split(",")) == extras.keys() - {"all", "dev"}


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    from edgewise import router

    for name in router.__all__:
        public = getattr(router, name)
        assert getattr(edgewise, name) is public
        assert public.__doc__, name


def test_the_wheel_holds_one_name_with_types_and_data(tmp_path: Path) -> None:
    # A copy, because setuptools keeps what it built before beside the sources.
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "edgewise",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert "edgewise/py.typed" in names
    assert "edgewise/policies/data/places.json" in names
    assert "edgewise/protos/v1/model_service.proto" in names
    assert "edgewise/protos/v1/model_service_pb2.pyi" in names
    modules = {name for name in names if name.endswith(".py")}
    on_disk = {
        "edgewise/" + str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "_root" not in path.parts
    }
    # Scripts beside the packages are no part of them.
    missing = {path for path in on_disk - modules if not path.endswith("/generate.py")}
    assert not missing


def test_only_policies_make_permits_and_only_dispatch_opens_content() -> None:
    """The walls of the house, held by looking: no type can say who calls."""
    makers, openers = set(), set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            where = str(path.relative_to(ROOT))
            if "Permit(" in text.replace("class Permit", "") and where != "core/permit.py":
                makers.add(where.split("/")[0])
            if "content.open(" in text:
                openers.add(where)
    assert makers == {"policies"}
    assert openers == {"router/dispatch.py"}
