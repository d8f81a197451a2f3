"""Readers of image refs: tables, lists and dialects; foreign Parquet, ORC and Avro in a sandbox."""
