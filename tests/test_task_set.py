"""The background tasks of one owner are kept until they end, and a close leaves none."""

import asyncio

from bucketfront.task_set import TaskSet


async def test_a_task_gives_its_result() -> None:
    """The caller of `start` may await the task, and the set forgets it afterwards."""
    tasks = TaskSet()
    task = tasks.start(asyncio.sleep(0, "done"), name="one")
    assert (len(tasks), task.get_name()) == (1, "one")
    assert await task == "done"
    await tasks.wait()
    assert not tasks


async def test_run_outlives_its_caller() -> None:
    """A cancelled caller of `run` does not cancel the task, which `wait` still waits for."""
    tasks, ended = TaskSet(), []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    caller = asyncio.create_task(tasks.run(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await tasks.wait()
    assert caller.cancelled()
    assert ended


async def test_wait_includes_later_tasks() -> None:
    """`wait` returns after the tasks that other tasks start, and a failure of one does not matter."""
    tasks, ended = TaskSet(), []

    async def step(left: int) -> None:
        await asyncio.sleep(0)
        if left:
            tasks.start(step(left - 1))
        ended.append(left)
        raise ValueError

    tasks.start(step(3))
    await tasks.wait()
    assert ended == [3, 2, 1, 0]


async def test_close_includes_later_tasks() -> None:
    """`close` cancels also the task that a cancelled one starts at its end."""
    tasks, cancelled = TaskSet(), []

    async def work(name: str, *successors: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(name)
            for successor in successors:
                tasks.start(work(successor))

    tasks.start(work("first", "second"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(tasks.close())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await closing
    assert cancelled[0] == "first"
    assert not tasks
