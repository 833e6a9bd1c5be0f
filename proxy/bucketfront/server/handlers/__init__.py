"""What each kind of request does."""
