"""Run the HTTP cache test suite against bucketfront, nginx and Varnish: `make http-cache`.

It writes its results into docs/http.md between two marker comments. A cache that is not installed is shown as *not
run*. Exit status 0: bucketfront passes every test that applies, except for the explained ones.
"""

import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path

import http_cache_suite
from http_cache_suite import CHOICES, FETCH, NOT_OF_S3, PACKAGE, Case, reason
from http_caches import CACHES, version

PAGE = http_cache_suite.HERE.parents[1] / "docs" / "http.md"
BEGIN, END = "<!-- make http-cache: begin -->", "<!-- make http-cache: end -->"
KINDS = {"required": "required tests", "optimal": "tests of what an optimal cache does"}
OF_OTHERS = ("nginx", "Varnish")


def score(cases: list[Case]) -> dict[str, str]:
    """Return `passed of run` for each kind of test."""
    ran = {kind: [case for case in cases if case.is_run and case.kind == kind] for kind in KINDS}
    return {kind: f"{sum(case.failure is None for case in ran[kind])} of {len(ran[kind])}" for kind in KINDS}


def scores(results: dict[str, list[Case]], versions: dict[str, str | None]) -> list[str]:
    lines = ["| cache | " + " | ".join(KINDS.values()) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name in CACHES:
        found = score(results[name]) if name in results else dict.fromkeys(KINDS, "not run")
        label = f"{name} {versions[name]}" if versions.get(name) else name
        lines.append(f"| {label} | " + " | ".join(found.values()) + " |")
    return lines


def not_passed(results: dict[str, list[Case]]) -> list[str]:
    """Return a table of the tests that bucketfront does not pass, with the results of the others."""
    others = [name for name in OF_OTHERS if name in results]
    lines = ["| test | " + " | ".join((*others, "why not bucketfront")) + " |", "|---" * (len(others) + 2) + "|"]
    by_id = {name: {case.id: case for case in results[name]} for name in others}
    for case in results["bucketfront"]:
        if case.failure is not None:
            passed = ["not passed" if by_id[name][case.id].failure else "passed" for name in others]
            chosen = reason(case, CHOICES)
            why = f"choice: {chosen}" if chosen else f"open: {reason(case) or case.failure}"
            lines.append(f"| `{case.id}` ({case.kind}) | " + " | ".join((*passed, why)) + " |")
    return lines


def left_out(cases: list[Case]) -> list[str]:
    lines = ["| tests | required | optimal | why they do not apply |", "|---|---|---|---|"]
    for pattern, why in NOT_OF_S3.items():
        found = [case for case in cases if re.fullmatch(pattern, case.id)]
        counts = [str(sum(case.kind == kind for case in found)) for kind in KINDS]
        shown = pattern.replace("|", "\\|")
        lines.append(f"| `{shown}` | " + " | ".join((*counts, why)) + " |")
    return lines


def text(results: dict[str, list[Case]], versions: dict[str, str | None], seconds: float) -> str:
    checks = sum(case.kind == "check" for case in results["bucketfront"])
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return "\n".join(
        [
            f"Measured on {date} with {PACKAGE} and {FETCH}, in {seconds:.0f} s.",
            "",
            *scores(results, versions),
            "",
            "The tests that bucketfront does not pass:",
            "",
            *not_passed(results),
            "",
            f"The tests that do not apply to a cache of S3, and are not run. {checks} more have no verdict.",
            "",
            *left_out(results["bucketfront"]),
        ]
    )


def write(found: str) -> None:
    """Write the text into the page. Raises ValueError if the page has lost its markers."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks {BEGIN} or {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}")


async def measure(names: list[str], home: Path) -> dict[str, list[Case]]:
    suite = http_cache_suite.install()
    results = {}
    for name in names:
        (home / name).mkdir()
        results[name] = await http_cache_suite.run(suite, CACHES[name], home / name)
    return results


def main() -> int:
    versions = {"nginx": version("nginx", "-v"), "Varnish": version("varnishd", "-V")}
    names = [name for name in CACHES if versions.get(name, "") is not None]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="http-cache-") as home:
        results = asyncio.run(measure(names, Path(home)))
    found = text(results, versions, time.monotonic() - started)
    sys.stdout.write(f"{found}\n")
    write(found)
    unexplained = [case for case in results["bucketfront"] if case.failure and not reason(case, CHOICES)]
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
