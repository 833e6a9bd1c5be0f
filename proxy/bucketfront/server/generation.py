"""What serves requests under one configuration, and how another one takes its place while connections stay open.

Theory of operation
-------------------
A `Generation` has all objects of the server that are made of the settings. The cache, the origin, the listener and its
connections stay. `Generations.replace` changes one reference, so the next request of each connection is served by the
new generation. A request that has begun ends under the old one, whose rules are closed after the last of them.

The fast path has no such reference, because each hit would pay for it. Its one `FastPath` adopts the parts of the new
generation in the same turn of the event loop. Prepared responses of the old settings go with the parts that made them.
The S3 endpoint has generations and a fast path of its own.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from bucketfront.server.fast_path.fast_path import FastPath, PlainRules
from bucketfront.task_set import TaskSet

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Closable(Protocol):
    """What decides who may do what. It watches files with secrets."""

    async def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class Generation:
    """`handle` responds to ordinary requests. `plain` serves the plain ones, and is None if the fast path is off.

    `rules` are closed after the last request. `running` counts those that are under way in `handle`.
    """

    handle: Handler
    plain: PlainRules | None
    rules: Closable
    running: int = field(default=0, init=False)
    is_replaced: bool = field(default=False, init=False)


class Generations:
    """Hands each request to the present generation, as the handler of a listener. The fast path adopts its rules."""

    def __init__(self, first: Generation, fast_path: FastPath) -> None:
        self.present = first
        self.fast_path = fast_path
        self._closing = TaskSet()
        fast_path.adopt(first.plain)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        generation = self.present
        generation.running += 1
        try:
            return await generation.handle(request)
        finally:
            generation.running -= 1
            self._close_if_unused(generation)

    def replace(self, generation: Generation) -> None:
        """Let a new generation serve all requests that begin from now on."""
        before, self.present = self.present, generation
        self.fast_path.adopt(generation.plain)
        before.is_replaced = True
        self._close_if_unused(before)

    async def close(self) -> None:
        """Close the rules of all generations. No request may be under way any more."""
        await self.present.rules.close()
        await self._closing.wait()

    def _close_if_unused(self, generation: Generation) -> None:
        if generation.is_replaced and not generation.running:
            self._closing.start(generation.rules.close(), name="close the rules before a reload")
