"""The compute window: from batches of refs to features, within bounds of memory and disk."""
