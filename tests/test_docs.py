"""What documents point at is there: files, folders, and sections of other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = "backends|benchmarks|core|docs|examples|policies|protos|router|tests"
PATH = re.compile(rf"(?<![\w/.~-])(?:{FOLDERS})/[\w./*-]*[\w/*]")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
ANCHOR = re.compile(r'<a id="([^"]+)">')

PAGES = sorted(path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS.split("|")
    for path in (ROOT / folder).rglob("*.py")
    if not path.name.endswith("_pb2.py")
)


def anchors(page: Path) -> set[str]:
    """The names of a page's sections, as they are linked to."""
    text = page.read_text()
    titles = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in HEADING.findall(text)}
    return titles | set(ANCHOR.findall(text))


def is_there(named: str) -> bool:
    """Whether the project has such a file, folder or module. ``*`` and ``NAME`` stand for any part of one."""
    pattern = named.rstrip("/").replace("NAME", "*")
    return any(ROOT.glob(pattern)) or any(ROOT.glob(f"{pattern}.py"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = (ROOT / page).read_text()
    assert [named for named in PATH.findall(text) if not is_there(named)] == []
    for link in LINK.findall(text):
        if "://" not in link:
            target, _, section = link.partition("#")
            file = (ROOT / page).parent / target if target else ROOT / page
            assert file.exists(), link
            assert not section or section in anchors(file), link


def test_what_the_code_names_is_there() -> None:
    missing = [
        (str(module), named)
        for module in MODULES
        for named in PATH.findall((ROOT / module).read_text())
        if not is_there(named)
    ]
    assert missing == []
