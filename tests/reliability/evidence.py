"""What a run of the reliability suite saw, in numbers."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one test. What is counted has the name it is to have in the document, as in `kill cycles`, `bytes checked`.

    `caught_by` has the node of the test that caught a planted bug.
    """

    figures: Counter[str] = field(default_factory=Counter)
    caught_by: list[str] = field(default_factory=list)

    def add(self, what: str, count: int = 1) -> None:
        self.figures[what] += count
