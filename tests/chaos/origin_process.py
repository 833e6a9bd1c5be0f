"""The chaos origin in a process of its own, which ends with its parent.

Protocol over a pipe: the parent sends (name, arguments). The child returns the value of that attribute of
`ChaosOrigin`, or the result of the call. A script is any callable that can be pickled, see `behaviour.AtRandom`.
"""

import asyncio
import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).parents[1]
PATHS = (TESTS.parent / "proxy", TESTS, TESTS / "chaos")
REPLY_TIMEOUT_S = 20.0  # seconds for one reply of the child


class OriginProcess:
    """A chaos origin in a child process. A context manager. A call blocks until the child replies, less than a
    millisecond.
    """

    def __init__(self, bucket: str = "bucket", *, is_versioned: bool = False) -> None:
        self._arguments = (bucket, is_versioned)
        self._pipe: Connection
        self._child: subprocess.Popen[bytes]
        self.bucket = bucket
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self._pipe, theirs = Pipe()
        path = os.pathsep.join(map(str, PATHS))
        self._child = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self._pipe.send(self._arguments)
        self.endpoint_url = self._reply()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        try:
            self._child.wait(REPLY_TIMEOUT_S)
        finally:
            self._child.kill()

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call `ChaosOrigin`'s method of that name."""
        self._pipe.send((name, arguments, named))
        return self._reply()

    def get(self, name: str) -> Any:
        """Return `ChaosOrigin`'s attribute of that name."""
        self._pipe.send((name, None, None))
        return self._reply()

    def set_script(self, script: Any) -> None:
        self._pipe.send(("script", script, None))
        self._reply()

    def _reply(self) -> Any:
        assert self._pipe.poll(REPLY_TIMEOUT_S), "the chaos origin does not answer"
        return self._pipe.recv()


async def _serve(pipe: Connection) -> None:
    from chaos_origin import ChaosOrigin  # noqa: PLC0415 - the parent needs none of it

    bucket, is_versioned = pipe.recv()
    async with ChaosOrigin(bucket, is_versioned=is_versioned) as origin:
        ended = asyncio.Event()

        def on_call() -> None:
            try:
                name, arguments, named = pipe.recv()
            except EOFError:
                ended.set()
                return
            if name == "script":
                origin.script = arguments
                pipe.send(None)
            elif arguments is None:
                pipe.send(getattr(origin, name))
            else:
                pipe.send(getattr(origin, name)(*arguments, **named))

        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), on_call)
        pipe.send(origin.endpoint_url)
        watching = asyncio.create_task(origin.watch_itself())
        await ended.wait()
        watching.cancel()
        loop.remove_reader(pipe.fileno())


if __name__ == "__main__":
    asyncio.run(_serve(Connection(int(sys.argv[1]))))
