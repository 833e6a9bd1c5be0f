"""The nursery: a process that forks front ends. Its standard input is a socket on which the owner asks for them.

Theory of operation
-------------------
The owner has threads, and a fork of it could inherit a lock that no thread releases. This process has none. It imports
all that a front end needs and then only waits, so a front end starts within milliseconds, and shares that memory.

Each datagram that the owner sends has the descriptor of a channel, for which a front end is forked. The kernel ends the
nursery with the owner, and the front ends with the nursery (prctl(2), PR_SET_PDEATHSIG), so none of them outlives the
owner, also if it is stopped. Signals of the terminal are for the owner, which ends the others.
"""

import ctypes
import gc
import os
import signal
import socket
import sys

from bucketfront.front_end.front_end import run

_PR_SET_PDEATHSIG = 1
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Fork a front end for each channel that arrives at standard input, until the owner is gone."""
    _end_with(os.getppid())
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the front ends
    gc.collect()
    gc.freeze()  # a collection would copy the pages that the front ends share
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as commands:
        try:
            commands.send(b"\0")  # it is ready
        except BrokenPipeError:  # the owner has ended
            return
        _fork_for_each(commands)


def _fork_for_each(commands: socket.socket) -> None:
    nursery = os.getpid()
    while True:
        try:
            octets, descriptors, _, _ = socket.recv_fds(commands, 1, 1)
        except ConnectionResetError:  # the owner has ended, and has not looked whether this process was ready
            return
        if not octets:
            return
        if os.fork() == 0:
            commands.close()
            _end_with(nursery)
            run(socket.socket(fileno=descriptors[0]))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(0)


if __name__ == "__main__":
    main()
