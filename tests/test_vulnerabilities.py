"""The verdict of `make audit` on known vulnerabilities: a database out of reach never looks as if all were well."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rows import each_row
from vulnerabilities import Outcome, main, verdict

CLEAN = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-1"}, {"id": "CVE-2026-2"}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


@each_row(
    ("packages", "outcome"),
    [
        ([CLEAN, CLEAN], Outcome.CLEAN),
        ([CLEAN, VULNERABLE], Outcome.VULNERABLE),
        ([UNKNOWN, VULNERABLE], Outcome.VULNERABLE),
        ([UNKNOWN, UNKNOWN], Outcome.NOT_RUN),
        ([CLEAN, UNKNOWN], Outcome.BROKEN),
        ([], Outcome.BROKEN),
    ],
)
def test_verdict_on_packages(packages: list[dict[str, Any]], outcome: Outcome) -> None:
    """A package that was not looked up is no clean one, and is a failure if others were looked up."""
    assert verdict(json.dumps({"dependencies": packages, "fixes": []}), "").outcome is outcome


@each_row(
    ("errors", "outcome"),
    [
        ("Traceback …\nrequests.exceptions.ProxyError: cannot connect", Outcome.NOT_RUN),
        ("requests.exceptions.ConnectionError: name not known", Outcome.NOT_RUN),
        ("Traceback …\npip_audit._service.interface.ServiceError\n", Outcome.NOT_RUN),
        ("ERROR:pip_audit._cli:Tip: your network may be blocking this service.", Outcome.NOT_RUN),
        ("pip_audit._service.interface.ServiceError: Received malformed version", Outcome.BROKEN),
        ("ERROR:pip_audit._cli:requirement a==1 has no hash", Outcome.BROKEN),
        ("", Outcome.BROKEN),
    ],
)
def test_verdict_on_errors(errors: str, outcome: Outcome) -> None:
    """Only a database out of reach passes as not run. Any other failure of the tool fails."""
    for output in ("", "not JSON", "[]"):
        assert verdict(output, errors).outcome is outcome


@pytest.mark.parametrize(("package", "status"), [(CLEAN, 0), (UNKNOWN, 0), (VULNERABLE, 1)])
def test_exit_status(package: dict[str, Any], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status and one line for each lock come from what the program prints, whatever its own status is."""
    program = tmp_path / "program.py"
    program.write_text(f"import sys\nprint({json.dumps(json.dumps({'dependencies': [package]}))})\nsys.exit(7)\n")
    assert main(["one.lock", "two.lock"], (sys.executable, str(program))) == status
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines()] == ["one.lock", "two.lock"]
    assert ("not run" in printed) == (package is UNKNOWN)


def test_no_lock_is_a_failure() -> None:
    """Without a lock nothing was looked up."""
    assert main([]) == 1
