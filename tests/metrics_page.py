"""Write the table of docs/metrics.md from that of the collectors: `make reference`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bucketfront.admin.collectors.table import FAMILIES
from bucketfront.server.telemetry.metric_family import MetricFamily

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: make reference -->\n", "<!-- end of metrics -->"


def table() -> str:
    """Return the tables of all metrics."""
    return "\n\n".join("\n".join(_section(title, families)) for title, families in FAMILIES.items())


def page(before: str) -> str:
    """Return the whole page, with the tables of now in place of those that it has."""
    head, rest = before.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n\n{END}{rest.split(END)[1]}"


def _section(title: str, families: Sequence[MetricFamily]) -> Iterator[str]:
    yield from (f"### {title}", "", "| metric | type | meaning |", "|---|---|---|")
    for family in families:
        labels = f"{{{', '.join(family.labels)}}}" if family.labels else ""
        yield f"| `{family.exposed_name}{labels}` | {family.kind.value} | {family.text} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
