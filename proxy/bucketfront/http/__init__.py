"""The rules of HTTP as pure functions and frozen values: no I/O, no `async`."""
