"""Random reads, writes and deletes through bucketfront and straight at the server, each compared with the server."""

import random
from collections import Counter
from dataclasses import dataclass, field

from s3_wire import Objects, Response

KEYS = tuple(f"random/{number}" for number in range(5))
SIZES = (0, 1, 700, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, (1 << 20) + 3, (9 << 20) + 5)
WEIGHTS = (2, 3, 6, 3, 3, 3, 3, 1)


@dataclass
class Outcome:
    """`wrong` has every wrong byte, every success of a write that the server did not keep, every false absence.

    `ignored` has every success of a write whose condition did not hold.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


class History:
    """A run of random requests, one at a time, so that the server's own response is the truth at that time."""

    def __init__(self, proxy: Objects, server: Objects, seed: int) -> None:
        self._proxy = proxy
        self._server = server
        self._random = random.Random(seed)
        self._etags: dict[str, str] = {}
        self.outcome = Outcome()

    def run(self, steps: int) -> Outcome:
        actions = {self._read: 10, self._put: 5, self._put_conditional: 2, self._delete: 1, self._put_elsewhere: 2,
                   self._delete_elsewhere: 1}  # fmt: skip
        for number in range(steps):
            action = self._random.choices(list(actions), list(actions.values()))[0]
            key = self._random.choice(KEYS)
            try:
                action(key)
            except OSError as error:
                self._note(f"{number} {action.__name__} {key}: {type(error).__name__} {error}")
        return self.outcome

    def _content(self) -> bytes:
        return self._random.randbytes(self._random.choices(SIZES, WEIGHTS)[0])

    def _truth(self, key: str) -> bytes | None:
        response = self._server.get(key)
        assert response.status in (200, 404), f"the server itself responds with {response.status}"
        return response.body if response.status == 200 else None

    def _note(self, what: str) -> None:
        self.outcome.wrong.append(what)

    def _count(self, what: str, response: Response) -> None:
        self.outcome.counts[f"{what} {response.status}"] += 1

    def _read(self, key: str) -> None:
        truth = self._truth(key)
        form, start, stop = self._range(len(truth or b""))
        response = self._proxy.get(key, **({"Range": form} if form else {}))
        self._count("GET", response)
        if response.status == 404:
            if truth is not None:
                self._note(f"GET {key}: 404, and the server has {len(truth)} bytes")
        elif response.status == 416:
            if truth is not None and start < len(truth):
                self._note(f"GET {key} {form}: 416 of {len(truth)} bytes")
        elif response.is_success:
            expected = truth if response.status == 200 or truth is None else truth[start:stop]
            if response.body != expected:
                self._note(f"GET {key} {form}: {response.status} with other bytes than the server's")
            self._etags[key] = response.etag

    def _range(self, size: int) -> tuple[str, int, int]:
        kind = self._random.choice(("none", "none", "from", "span", "suffix"))
        first = self._random.randrange(size + 1)
        last = first + self._random.randrange(1, size + 2)
        if kind == "from":
            return f"bytes={first}-", first, size
        if kind == "span":
            return f"bytes={first}-{last - 1}", first, min(last, size)
        if kind == "suffix":
            return f"bytes=-{last}", max(0, size - last), size
        return "", 0, size

    def _put(self, key: str) -> None:
        self._written(key, self._content(), {}, is_permitted=True)

    def _put_conditional(self, key: str) -> None:
        """Write with a condition. Against one that does not hold, no success and no change may be seen."""
        truth = self._truth(key)
        if self._random.random() < 0.5 or not self._etags.get(key):
            self._written(key, self._content(), {"If-None-Match": "*"}, is_permitted=truth is None)
        else:
            etag = self._server.head(key).etag if truth is not None else ""
            self._written(
                key, self._content(), {"If-Match": self._etags[key]}, is_permitted=etag == self._etags[key] != ""
            )

    def _written(self, key: str, content: bytes, headers: dict[str, str], *, is_permitted: bool) -> None:
        before = self._truth(key)
        is_chunked = self._random.random() < 0.3
        response = self._proxy.send("PUT", key, headers, content, is_chunked=is_chunked)
        self._count(f"PUT{' with a condition' if headers else ''}", response)
        after = self._truth(key)
        told = f"PUT {key} of {len(content)} bytes {headers}: {response.status}"
        if response.is_success and after != content:
            self._note(f"{told}, and the server has {None if after is None else len(after)} bytes")
        if response.is_success and not is_permitted:
            self.outcome.ignored.append(f"{told}, though the condition does not hold")
        if not response.is_success and after not in ((before, content) if is_permitted else (before,)):
            self._note(f"{told}, and the object changed")

    def _put_elsewhere(self, key: str) -> None:
        response = self._server.put(key, self._content())
        assert response.is_success, f"the server itself responds with {response.status}"

    def _delete(self, key: str) -> None:
        response = self._proxy.delete(key)
        self._count("DELETE", response)
        if response.is_success and self._truth(key) is not None:
            self._note(f"DELETE {key}: {response.status}, and the server has it still")

    def _delete_elsewhere(self, key: str) -> None:
        self._server.delete(key)
