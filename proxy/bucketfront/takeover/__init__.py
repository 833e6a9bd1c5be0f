"""A new process takes the place of the running one: its listening sockets, and its cache."""
