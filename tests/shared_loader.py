"""One botocore loader for all sessions of a process."""

import functools

import botocore.session


def share_loader() -> None:
    """Let botocore build its loader once, instead of once per session.

    A loader lists the folders of 400 services and parses a megabyte of JSON. That is three quarters of the time to
    make an S3 client, and the tests make thousands of clients.
    """
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
