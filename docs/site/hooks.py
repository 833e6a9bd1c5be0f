"""What mkdocs needs besides its settings: pages from outside of docs/, and links that leave the site.

The pages are written to be read in the repository. A link to a file that the site does not have becomes its text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
"""The files at the top that are pages, and where they are in the site."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^\s*(```|~~~)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    in_code, lines = False, []
    for line in markdown.splitlines():
        if _FENCE.match(line):
            in_code = not in_code
        lines.append(line if in_code else _LINK.sub(lambda found: _link(found, page.file.src_uri, files), line))
    return "\n".join(lines)


def _link(found: re.Match[str], page: str, files: Files) -> str:
    """Return the link as the site has it, or its text if it leads to a file that is no page."""
    mark, text, target, anchor = found[1], found[2], found[3], found[4] or ""
    if not target or "://" in target or target.startswith("mailto:"):
        return found[0]
    own = next((source for source, name in PAGES.items() if name == page), f"docs/{page}")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(own), target))
    name = PAGES.get(place) or place.removeprefix("docs/")
    if (place in PAGES or place.startswith("docs/")) and files.get_file_from_path(name) is not None:
        return f"{mark}[{text}]({posixpath.relpath(name, posixpath.dirname(page) or '.')}{anchor})"
    return text
