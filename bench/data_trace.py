"""The requests of one program that reads data, as they came at a server, in a file of JSON lines.

The first line has the program, what it read, and the sizes of the objects, null for one that is absent. Each further
line is a request: [method, number of the object, value of `Range` without its unit or null, ended]. `ended` is how many
requests had ended when this one began, so that a replay sends at once what the program sent at once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("data_traces")


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the object of that number. `range` is null for a whole object, else for example `0-99`."""

    method: str
    object: int
    range: str | None
    ended: int


@dataclass(frozen=True, slots=True)
class DataTrace:
    """The requests of one program, in the order in which they came. `sizes` has None for an object that is absent."""

    name: str
    program: str
    what: str
    sizes: Sequence[int | None]
    requests: Sequence[Request]

    @classmethod
    def load(cls, path: Path) -> "DataTrace":
        first, *lines = path.read_text().splitlines()
        head = json.loads(first)
        requests = [Request(*json.loads(line)) for line in lines]
        return cls(path.stem, head["program"], head["what"], head["sizes"], requests)

    def save(self, folder: Path = FOLDER) -> None:
        head = {"program": self.program, "what": self.what, "sizes": list(self.sizes)}
        lines = [head, *([one.method, one.object, one.range, one.ended] for one in self.requests)]
        (folder / f"{self.name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def data_traces() -> Iterator[DataTrace]:
    """Yield the traces of the repository, by name."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        yield DataTrace.load(path)
