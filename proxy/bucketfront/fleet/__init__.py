"""Several proxies of the same buckets: they send each other what becomes invalid, over a bus."""
