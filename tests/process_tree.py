"""The processes that a process has started, as proc(5) has them."""

from pathlib import Path


def descendants(process: int) -> list[int]:
    """Return the ids of all processes below one, the children before their own children."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    own = [int(one) for one in text.split()]
    return own + [further for one in own for further in descendants(one)]


def has_ended(process: int) -> bool:
    """Return whether a process has ended. A zombie has, and only waits for its parent."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "XZ"
