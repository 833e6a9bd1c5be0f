"""W3C Trace Context: the examples and the rules of its sections 3.2 and 3.3."""

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import trace_context
from bucketfront.http.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@each_row(
    ("value", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-ff", "01"),
        (f"cc-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", "01"),
    ],
)
def test_valid(value: str, flags: str) -> None:
    """A valid field names trace and span, also that of a later version. Of the flags only the known one is kept."""
    assert trace_context.parse(value) == TraceContext(TRACE, SPAN, flags)


@each_row(
    "value",
    [
        None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-0", f"00-{TRACE}-{SPAN}-00-x",
        f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-00", f"00-{'0' * 32}-{SPAN}-00",
        f"00-{TRACE}-{'0' * 16}-00", f" 00-{TRACE}-{SPAN}-00",
        f"cc-{TRACE}-{SPAN}-01.x", f"00-{TRACE[:-1]}g-{SPAN}-00", f"00_{TRACE}-{SPAN}-00",
    ],
)  # fmt: skip
def test_invalid(value: str | None) -> None:
    """An invalid field is as good as none (section 3.2.2.5)."""
    assert trace_context.parse(value, "a=1") is None


@each_row(
    ("state", "kept"),
    [(None, None), ("", None), ("rojo=00f067aa0ba902b7,congo=t61", True), ("a" * 513, None), ("a\r\nB: 1", None)],
)
def test_state(state: str | None, kept: bool | None) -> None:
    """A `tracestate` is passed on as it is, unless it is too long or no field value (I28)."""
    found = trace_context.parse(f"00-{TRACE}-{SPAN}-01", state)
    assert found is not None
    assert found.state == (state if kept else None)


@given(st.text())
def test_any_text(value: str) -> None:
    """Any text has a trace or none, and what is passed on is valid."""
    found = trace_context.parse(value)
    if found is not None:
        assert trace_context.parse(found.with_span(SPAN)) == TraceContext(found.trace_id, SPAN, found.flags)
