"""Access control: which client may do what to which key, by the rules that a mount lists."""
