"""The cache: blocks, index, store, fills, evictor, and `Cache`, the one door to all of it."""
