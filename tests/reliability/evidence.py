"""The figures that a run of the reliability suite recorded."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """The figures of one test, by their names in docs/reliability.md, such as `kill cycles` or `bytes checked`.

    `caught_by` has the node of the test that caught a planted bug.
    """

    figures: Counter[str] = field(default_factory=Counter)
    caught_by: list[str] = field(default_factory=list)

    def add(self, what: str, count: int = 1) -> None:
        self.figures[what] += count
