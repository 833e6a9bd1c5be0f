"""Bytes and rows on disk. Nothing here knows an entry."""
