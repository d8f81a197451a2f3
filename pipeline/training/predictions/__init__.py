"""What a test says of each of its examples: where a net says it, how it is collected, and the file that keeps it."""
