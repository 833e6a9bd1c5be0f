"""The documentation's links: files and anchors exist, and so does each invariant that the code names."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = ROOT / "proxy" / "bucketfront"
# A link to one of these may dangle until the page is written.
EXPECTED = {"docs/configuration.md"}

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_NOT_IN_ANCHOR = re.compile(r"[^\w -]")
_INVARIANT = re.compile(r"docs/invariants\.md#([\w-]+)")


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them: a repeated heading gets a number."""
    seen = Counter[str]()
    found = set[str]()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = _NOT_IN_ANCHOR.sub("", title.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead to no file or to no heading."""
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            if not target.is_relative_to(ROOT) or str(target.relative_to(ROOT)) not in EXPECTED:
                broken.append(link)
        elif anchor and target.suffix == ".md":
            content = target.read_text() if path else text
            if anchor not in anchors_of(content):
                broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Each relative link leads to a file, and each anchor to a heading of it."""
    assert broken_links(page, page.read_text()) == []


def test_invariants_of_the_code_exist() -> None:
    """Each anchor of docs/invariants.md that the code or a test names is a heading there."""
    known = anchors_of((ROOT / "docs" / "invariants.md").read_text())
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    named = {anchor: path for path in sources for anchor in _INVARIANT.findall(path.read_text())}
    assert {anchor: path for anchor, path in named.items() if anchor not in known} == {}


def test_paths_of_invariants_exist() -> None:
    """Each module and test file that docs/invariants.md names exists."""
    text = (ROOT / "docs" / "invariants.md").read_text()
    places = (ROOT, PACKAGE, ROOT / "tests")
    missing = [path for path in re.findall(r"`([\w/]+\.py)`", text) if not any((at / path).exists() for at in places)]
    assert missing == []


def test_broken_links_are_found() -> None:
    """A missing file, a missing heading and an unknown anchor of the page itself are reported; code is not read."""
    text = "# One two\n[a](none.md) [b](glossary.md#none) [c](#three) [d](#one-two) [e](https://x.org/a)\n```\n[f](none)\n```\n"
    assert broken_links(ROOT / "docs" / "invariants.md", text) == ["none.md", "glossary.md#none", "#three"]
