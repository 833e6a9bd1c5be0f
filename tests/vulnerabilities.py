"""Look up the packages of lock files in a database of known vulnerabilities, with pip-audit: `make audit`.

pip-audit reports no vulnerabilities for a package that its database does not answer for. Here such a package counts as
not looked up. Ends with 1 if a package has a vulnerability or was not looked up, and with 0 if all were looked up, or
none because the database is out of reach.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

PIP_AUDIT = (sys.executable, "-m", "pip_audit")
OPTIONS = ("--require-hashes", "--disable-pip", "--format=json", "--progress-spinner=off")
TIMEOUT_S = 300.0  # seconds for one request for each package, several times what a slow network needs

# What pip-audit and its HTTP client print last if there is no connection, or an HTTP status other than 404.
_UNREACHABLE = re.compile(
    r"^requests\.exceptions\.|^pip_audit\._service\.interface\.ServiceError$|your network may be blocking", re.MULTILINE
)


class Outcome(Enum):
    CLEAN = auto()
    VULNERABLE = auto()
    NOT_RUN = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    text: str

    @property
    def passes(self) -> bool:
        return self.outcome in (Outcome.CLEAN, Outcome.NOT_RUN)


def verdict(output: str, errors: str) -> Verdict:
    """Return what pip-audit has found, from its standard output and standard error."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if _UNREACHABLE.search(errors):
            return Verdict(Outcome.NOT_RUN, "not run: the database of vulnerabilities is out of reach")
        return Verdict(Outcome.BROKEN, f"pip-audit failed: {errors[-2000:]}")
    return _of_packages(packages)


def _of_packages(packages: Sequence[Mapping[str, Any]]) -> Verdict:
    unknown = [f"{package['name']}: {package.get('skip_reason')}" for package in packages if "vulns" not in package]
    found = [
        f"{package['name']} {package['version']}: {', '.join(vuln['id'] for vuln in package['vulns'])}"
        for package in packages
        if package.get("vulns")
    ]
    if found:
        return Verdict(Outcome.VULNERABLE, "\n".join(found))
    if not packages:
        return Verdict(Outcome.BROKEN, "pip-audit has read no packages")
    if len(unknown) == len(packages):
        return Verdict(Outcome.NOT_RUN, f"not run: the database has none of {len(packages)} packages")
    if unknown:
        return Verdict(Outcome.BROKEN, "not looked up:\n" + "\n".join(unknown))
    return Verdict(Outcome.CLEAN, f"no known vulnerabilities in {len(packages)} packages")


def main(locks: Sequence[str], program: Sequence[str] = PIP_AUDIT) -> int:
    """Print a verdict on each lock. Returns the exit status."""
    passes = bool(locks)
    for lock in locks:
        command = (*program, *OPTIONS, "--requirement", lock)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            found = Verdict(Outcome.NOT_RUN, f"not run: the database has not responded in {TIMEOUT_S:.0f} s")
        else:
            found = verdict(done.stdout, done.stderr)
        sys.stdout.write(f"{lock}: {found.text}\n")
        passes &= found.passes
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
