"""The table in docs/http.md between two marker comments. The text around them is written by hand."""

from pathlib import Path

from behaviours_bench import Group, Row

PAGE = Path(__file__).parent.parent / "docs" / "http.md"
UNMET = "✗"  # marks a cell that differs from what the section requires
BEGIN, END = "<!-- make behaviours: begin -->", "<!-- make behaviours: end -->"

Cells = dict[tuple[str, str], dict[str, str]]
"""(title of the group, what the row is about) -> proxy -> cell."""


def table(groups: list[Group], cells: Cells, proxies: list[str]) -> str:
    """Return Markdown with a table for each group."""
    lines: list[str] = []
    for group in groups:
        lines += [f"### {group.title}", "", _line(["request", "RFC, section", *proxies])]
        lines.append("|" + "---|" * (len(proxies) + 2))
        for row in group.rows:
            by_proxy = cells[group.title, row.what]
            lines.append(_line([row.what, row.rfc or "-", *(_cell(row, by_proxy.get(proxy)) for proxy in proxies)]))
        lines.append("")
    return "\n".join(lines)


def _cell(row: Row, cell: str | None) -> str:
    if cell is None:
        return "not run"
    return cell if row.is_met(cell) else f"{UNMET} {cell}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(facts: str, tables: str) -> None:
    """Write the table into the page. Raises ValueError if the page has lost its markers."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks {BEGIN} or {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{facts}\n\n{tables}\n{END}{after}")
