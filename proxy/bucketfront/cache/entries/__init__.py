"""What is known of the cached versions: in memory, every change synchronous."""
