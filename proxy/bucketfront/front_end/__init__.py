"""Processes that answer hits beside the owner of the cache, and what connects them with it."""
