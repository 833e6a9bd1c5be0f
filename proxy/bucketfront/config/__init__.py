"""Typed settings, and how `proxy.yaml` and the environment become them."""
