"""Write docs/s3-servers.md: what S3 servers of others do, and what a client of bucketfront sees then.

`make s3-servers` runs it. A server that cannot be installed is shown as *not run*. Exit status 1: bucketfront sent a
wrong byte or a false success.
"""

import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import installs
import pytest
import s3_compatibility
from s3_compatibility import SEED, STEPS, Report
from s3_probes import HOLDS, PROBES
from s3_servers import SERVERS

PAGE = s3_compatibility.ROOT / "docs" / "s3-servers.md"
INTRODUCTION = """\
# S3 servers

bucketfront in front of S3 servers of others. `make s3-servers` measures this page; do not edit it. Each server runs
on loopback, with a whole bucketfront in front of it. `make e2e` runs the same, and fails after a wrong byte or a false
success. A server that cannot be installed is shown as *not run*.

- *Probes*: what a client relies on in S3, tried at the server itself and through bucketfront. A section lists what
  differs from S3 at one of them, and everything else holds at both.
- *Random requests*: reads, ranges, uploads with and without length and conditions, and deletes through bucketfront,
  mixed with writes and deletes straight at the server. Nothing in the cache counts as fresh, and after each request the
  bytes are compared with what the server itself sends. A response of 4xx or 5xx is no wrong byte.
- *Conformance suite*: `tests/s3/test_s3_conformance.py`, which holds the origin's client to S3. A case that does not
  pass shows that the server is no S3 there: a response that contradicts itself or the request is refused, and a field
  that the server lost is not there. moto and SeaweedFS pass it in `make test` and `make e2e`.
"""


class Conformance:
    """A plugin of pytest. It counts the passed and the failed cases of each test for each server."""

    def __init__(self) -> None:
        self.passed: dict[str, Counter[str]] = defaultdict(Counter)
        self.failed: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "call" and isinstance(item, pytest.Function):
            counts = self.passed if call.excinfo is None else self.failed
            counts[str(item.callspec.params["subject"])][item.originalname] += 1

    def run(self) -> None:
        suite = s3_compatibility.ROOT / "tests" / "s3" / "test_s3_conformance.py"
        pytest.main(
            ["-m", "compatibility", "-q", "--tb=no", "--no-summary", "-p", "no:cacheprovider", str(suite)], [self]
        )

    def lines(self, name: str) -> list[str]:
        """Return what to show of a server, nothing if the suite did not run."""
        passed, failed = self.passed[name], self.failed[name]
        if not passed:
            return []
        several = (f"`{test}` ({count} of {count + passed[test]})" for test, count in sorted(failed.items()))
        total = passed.total() + failed.total()
        text = f"Conformance suite of the origin's client: {passed.total()} of {total} cases pass."
        return [f"{text} Not passed: {', '.join(several)}." if failed else text, ""]


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def overview(reports: dict[str, Report | str]) -> list[str]:
    lines = [
        "| server | package | how it ran | probes that hold | through bucketfront | random requests | wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        server = SERVERS[name]
        if isinstance(report, str):
            lines.append(f"| {name} | {server.package} | not run: {cell(report)} | | | | |")
            continue
        counts = [
            sum(found == HOLDS for found in column)
            for column in ([one.at_server for one in report.findings], [one.at_bucketfront for one in report.findings])
        ]
        held = [f"{count} of {len(PROBES)}" for count in counts]
        wrong = len(report.outcome.wrong) + len(report.outcome.ignored)
        lines.append(
            f"| [{name}](#{anchor(name)}) | {server.package} | {server.configuration} | {held[0]} | {held[1]} "
            f"| {report.outcome.counts.total()} | {wrong} |"
        )
    return lines


def anchor(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")


def section(report: Report, conformance: Conformance) -> list[str]:
    differing = [one for one in report.findings if (one.at_server, one.at_bucketfront) != (HOLDS, HOLDS)]
    lines = [f"## {report.server.name}", ""]
    if differing:
        lines += ["| | the server | through bucketfront |", "|---|---|---|"]
        lines += [f"| {one.what} | {cell(one.at_server)} | {cell(one.at_bucketfront)} |" for one in differing]
    else:
        lines.append("Every probe holds.")
    counts = ", ".join(f"{what}: {count}" for what, count in sorted(report.outcome.counts.items()))
    lines += ["", f"Random requests: {counts}."]
    for wrong in (*report.outcome.wrong, *report.outcome.ignored):
        lines.append(f"- wrong: {cell(wrong)}")
    return [*lines, "", *conformance.lines(report.server.name)]


def main() -> int:
    reports: dict[str, Report | str] = {}
    for name, server in SERVERS.items():
        with tempfile.TemporaryDirectory(prefix="compatibility-") as folder:
            try:
                reports[name] = s3_compatibility.examine(server, Path(folder))
            except installs.NotInstallable as why:
                reports[name] = str(why)
        sys.stdout.write(f"{name}\n")
    conformance = Conformance()
    conformance.run()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    lines = [INTRODUCTION, f"Measured on {date}: {STEPS} random steps for each server, seed {SEED}.", ""]
    lines += overview(reports)
    lines.append("")
    for report in reports.values():
        if isinstance(report, Report):
            lines += section(report, conformance)
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    return (
        1
        if any(isinstance(one, Report) and (one.outcome.wrong or one.outcome.ignored) for one in reports.values())
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
