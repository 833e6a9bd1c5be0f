"""The control plane, on a listener of its own (docs/invariants.md#admin-is-apart)."""
