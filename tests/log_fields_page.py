"""Write the table of docs/log-fields.md from that of the access log: `make reference`."""

from pathlib import Path

from bucketfront.server.telemetry.line_fields import LINE_FIELDS

PAGE = Path(__file__).parent.parent / "docs" / "log-fields.md"
BEGIN, END = "<!-- fields: make reference -->\n", "<!-- end of fields -->"


def table() -> str:
    """Return the table of all fields."""
    rows = (f"| `{field.name}` | {'yes' if field.is_always else ''} | {field.text} |" for field in LINE_FIELDS)
    return "\n".join(("| field | always | meaning |", "|---|---|---|", *rows))


def page(before: str) -> str:
    """Return the whole page, with the table of now in place of the one that it has."""
    head, rest = before.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
