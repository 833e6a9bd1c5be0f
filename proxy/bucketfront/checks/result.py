"""The result of one check."""

from dataclasses import dataclass
from enum import Enum


class CheckVerdict(Enum):
    """What a check found. The value is its name in JSON."""

    FINE = "fine"
    WARNING = "warning"  # the proxy serves, but not all that the configuration promises; or a check cannot be done
    FAILED = "failed"  # the proxy does not start, or requests fail


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `subject` is one of a few stable names, and `name` is which one of several it is.

    `message` has the fix if the check failed.
    """

    subject: str
    verdict: CheckVerdict
    message: str
    name: str = ""

    @property
    def is_fine(self) -> bool:
        return self.verdict is not CheckVerdict.FAILED

    @property
    def title(self) -> str:
        return f"{self.subject} {self.name}".rstrip()

    def as_dict(self) -> dict[str, object]:
        """Return what `check --json` prints of it."""
        return {
            "subject": self.subject,
            "name": self.name,
            "ok": self.is_fine,
            "verdict": self.verdict.value,
            "message": self.message,
        }


def fine(subject: str, message: str, name: str = "") -> CheckResult:
    return CheckResult(subject, CheckVerdict.FINE, message, name)


def warning(subject: str, message: str, name: str = "") -> CheckResult:
    return CheckResult(subject, CheckVerdict.WARNING, message, name)


def failed(subject: str, message: str, name: str = "") -> CheckResult:
    return CheckResult(subject, CheckVerdict.FAILED, message, name)
