"""Bounds on time that hold on any machine."""

import asyncio
import time
from collections.abc import Awaitable, Callable

TRIES = 5
HANG_S = 60.0  # longer than any step takes on a busy machine, unless it hangs
ADDITIONS = 1_000_000
ADDITIONS_S = 0.010  # seconds that they take on the machines whose promises in seconds docs/invariants.md gives


async def assert_takes_less_than(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    """Assert that `act`, run up to TRIES times, takes less than `seconds` at least once.

    A busy machine can only make a run slower, so one run within the bound proves it. If the code under test misses
    its deadline, no run is fast enough.
    """
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(TRIES):
        began = loop.time()
        await act()
        taken.append(loop.time() - began)
        if taken[-1] < seconds:
            return
    raise AssertionError(f"took {[round(each, 3) for each in taken]} s, expected less than {seconds} s once")


def on_this_machine(seconds: float) -> float:
    """Return how long work of so many seconds takes on this machine as slow and busy as it is now, and no less."""
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        sum(range(ADDITIONS))
        taken.append(time.perf_counter() - began)
    return seconds * max(1.0, sorted(taken)[len(taken) // 2] / ADDITIONS_S)
