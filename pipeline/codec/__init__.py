"""Bytes <-> records: protobuf batches, ref tables, shards, delivered features and failures."""
