"""bucketfront: a caching reverse proxy for S3."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bucketfront")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
