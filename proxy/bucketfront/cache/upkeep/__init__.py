"""Changes of the disk and the entries together: space, open files, removal, flushes of the index, purges."""
