"""The results of attacks in docs/security.md: the last run of each test counts, and the others keep theirs.

The rest of the page is written by hand.
"""

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, DATA = ROOT / "docs" / "security.md", ROOT / "docs" / "security.json"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def _versions() -> str:
    return f"Python {platform.python_version()}, aiohttp {version('aiohttp')}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Trial:
    """One test of an attack. `count` is how often it was tried, and `seen` is what a reader wants to know of it."""

    family: str
    what: str
    count: int
    seen: str
    outcome: str
    date: str = field(default_factory=_today)
    versions: str = field(default_factory=_versions)


def write_page(ran: Mapping[str, Trial]) -> None:
    """Write the results of a session, and those of earlier ones whose tests still exist."""
    known = {node: Trial(**values) for node, values in json.loads(DATA.read_text()).items()} if DATA.exists() else {}
    merged = {node: each for node, each in sorted({**known, **ran}.items()) if _exists(node)}
    lines = [f"{json.dumps(node)}: {json.dumps(asdict(each))}" for node, each in merged.items()]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    PAGE.write_text(with_results(PAGE.read_text(), merged.values()))


def with_results(page: str, trials: Iterable[Trial]) -> str:
    """Return the page with these results in place of its own."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(_table(trials)) + f"\n\n{END}{after}"


def _table(trials: Iterable[Trial]) -> Iterator[str]:
    yield "| attack | what was done | n | seen | result | date | with |"
    yield "|---|---|---:|---|---|---|---|"
    for each in sorted(trials, key=lambda trial: (trial.family, trial.what)):
        cells = (each.family, each.what, f"{each.count:,}", each.seen, each.outcome, each.date, each.versions)
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _exists(node: str) -> bool:
    file, _, test = node.partition("::")
    path = ROOT / file
    return path.exists() and f"def {test.partition('[')[0]}(" in path.read_text()
