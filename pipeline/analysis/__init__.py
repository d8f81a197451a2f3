"""What features look like, and what is near to an item."""
