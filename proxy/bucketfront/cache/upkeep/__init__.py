"""What changes the disk and the entries together: space, open files, removal, the index written."""
