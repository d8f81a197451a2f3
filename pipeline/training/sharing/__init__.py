"""A batch that is cut into shards, and the processes that share their computing."""
