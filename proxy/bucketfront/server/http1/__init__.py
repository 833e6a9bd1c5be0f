"""Connections: accepting them, framing, deadlines, the event loop."""
