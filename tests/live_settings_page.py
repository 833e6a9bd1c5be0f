"""Write the table of docs/operations.md that says what a reload applies: `make reference`."""

from pathlib import Path

from bucketfront.config.live_settings import LIVE, NEEDS_RESTART

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- live settings: make reference -->\n", "<!-- end of live settings -->"


def table() -> str:
    """Return the table of all settings."""
    rows = [f"| `{name}` | a reload |" for name in LIVE]
    rows += [f"| `{name}` | a restart: {reason} |" for name, reason in NEEDS_RESTART.items()]
    return "\n".join(("| setting | what applies it |", "|---|---|", *rows))


def page(before: str) -> str:
    """Return the whole page, with the table of now in place of the one that it has."""
    head, rest = before.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
