"""The base of every section of the configuration, and the error of two settings that do not fit each other."""

from pydantic import BaseModel, ConfigDict


class SettingError(ValueError):
    """A setting that does not fit another one. `at` lists where it stands, from the root; the first place is blamed."""

    def __init__(self, message: str, *at: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.at = at


class Section(BaseModel):
    """A mapping of known keys, as a frozen value.

    The docstrings of a section and of its fields are the text of docs/configuration.md, so they address operators.
    """

    # pydantic's own messages leave inputs out, because an input may be a secret (docs/invariants.md#secrets-stay-in).
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
