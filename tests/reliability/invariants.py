"""The invariants of docs/invariants.md, each with its title, number and statement."""

import re
from pathlib import Path

from reliability_page import Invariant

PAGE = Path(__file__).parents[2] / "docs" / "invariants.md"
_PROMISE = re.compile(r"^### (?P<title>.+)\n\n\(I(?P<number>\d+)\) (?P<statement>(?:.+\n)+)", re.MULTILINE)

INVARIANTS = tuple(
    Invariant(int(found["number"]), found["title"], " ".join(found["statement"].split()))
    for found in _PROMISE.finditer(PAGE.read_text())
)
