"""What a delivery consists of: how it is merged, named, written and read."""
