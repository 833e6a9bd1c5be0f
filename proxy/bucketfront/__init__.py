"""bucketfront: a caching reverse proxy for S3."""

__version__: str


def __getattr__(name: str) -> str:
    """Return `__version__` when it is first read, because what finds it takes most of the time of `--help` to import.

    Raises AttributeError for any other name, as the import system expects.
    """
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see above

    try:
        found = version("bucketfront")
    except PackageNotFoundError:  # a source tree that was never installed
        found = "0+unknown"
    globals()[name] = found
    return found
