"""Values of settings as YAML."""

from typing import Any


def flow(value: Any) -> str:
    """Return a value in one line, as the loader of the configuration reads it back."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return str(text).removesuffix("\n").removesuffix("\n...").replace("${", "$${")
