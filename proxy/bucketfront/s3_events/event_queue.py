"""The queue of events that the reader requires. `sqs_queue.SqsQueue` is the implementation."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class QueueFault(Enum):
    """Why a call of the queue failed. The values are names of troubles, so they are stable."""

    UNREACHABLE = "queue-unreachable"
    FAILING = "queue-failing"
    THROTTLED = "queue-throttles"
    DENIED = "queue-access-denied"
    CREDENTIALS = "queue-credentials-refused"
    MISSING = "queue-missing"


class QueueError(Exception):
    """A call of the queue failed. The text is for operators, and has no secret."""

    def __init__(self, fault: QueueFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that was received. `receipt` names this receipt of it.

    `sent_at` is when it came into the queue, in seconds since the epoch, None if the queue does not know.
    """

    receipt: str
    body: str
    sent_at: float | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the queue is like. `retention` is how many seconds it keeps a message, None if unknown.

    If `has_dead_letters` is true, messages that come again and again go to another queue. `backlog` is about how many
    messages wait.
    """

    retention: float | None
    has_dead_letters: bool
    backlog: int = 0


class EventQueue(Protocol):
    """A queue that delivers each message at least once, in any order. A received one comes again unless it is deleted.

    All methods raise QueueError.
    """

    async def receive(self) -> Sequence[QueuedMessage]:
        """Wait some seconds for messages, and return a few. Returns none if all have been received."""

    async def delete(self, messages: Sequence[QueuedMessage]) -> None:
        """Delete received messages. Those that cannot be deleted come again."""

    async def release(self, messages: Sequence[QueuedMessage]) -> None:
        """Let received messages come again at once."""

    async def facts(self) -> QueueFacts:
        """Return what the queue is like."""

    async def renew_credentials(self) -> None:
        """Load the credentials anew, because they were refused."""
