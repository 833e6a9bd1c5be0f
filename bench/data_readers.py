"""Replay what programs of data request, and write the tables of docs/data-readers.md: `make data-readers`.

The traces are those of `bench/data_traces`, which `data_recorder.py` records.
"""

import argparse
import asyncio
from collections.abc import Iterable
from pathlib import Path

from data_replay import Outcome, replayed
from data_trace import data_traces

PAGE = Path(__file__).parent.parent / "docs" / "data-readers.md"
BEGIN, END = "<!-- figures: make data-readers -->\n", "<!-- end of figures -->"
KIB = 1 << 10
BLOCK_SIZES = (32 * KIB, 16 * KIB, 64 * KIB)  # the default of `cache.block_size` first
GOAL = 1.3  # bytes of the origin for each byte that is read


async def outcomes() -> list[list[Outcome]]:
    """Return what each trace costs with each size of blocks."""
    return [[await replayed(trace, size) for size in BLOCK_SIZES] for trace in data_traces()]


def table(found: Iterable[list[Outcome]]) -> str:
    sizes = " | ".join(f"{size // KIB} KiB" for size in BLOCK_SIZES)
    lines = [
        f"| program | what it reads | MB | its requests | to S3 | never read | {sizes} |",
        "|---|---|--:|--:|--:|--:|" + "--:|" * len(BLOCK_SIZES),
    ]
    for row in found:
        usual = row[0]
        trace = usual.trace
        ratios = " | ".join(f"{one.ratio:.2f}" if one.ratio <= GOAL else f"**{one.ratio:.2f}**" for one in row)
        lines.append(
            f"| {trace.program} | {trace.what} | {usual.read / 1e6:.1f} | {usual.requested} | {usual.requests}"
            f" | {usual.unread / usual.sent:.0%} | {ratios} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--print", action="store_true", help="print the table, and leave the page as it is")
    given = parser.parse_args()
    text = table(asyncio.run(outcomes()))
    print(text)
    if not given.print:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n" + text + "\n\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
