"""Rewrite the Content-Disposition of a response (RFC 6266)."""

_ATTACHMENT = "attachment"


def attachment(given: str) -> str:
    """Return the value that makes browsers save the response, with the parameters of `given`, such as `filename`.

    `given` may be empty or malformed. Browsers take the type from what is before the first ';'. What follows cannot
    change it, so the parameters stay as they are.
    """
    kind, semicolon, parameters = given.partition(";")
    if kind.strip(" \t").lower() == _ATTACHMENT:
        return given
    if "=" in kind:  # parameters without a type, as some clients store them
        return f"{_ATTACHMENT}; {given.strip()}"
    return f"{_ATTACHMENT}{semicolon}{parameters}"
