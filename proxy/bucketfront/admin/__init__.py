"""The control plane, on a listener of its own (I27)."""
