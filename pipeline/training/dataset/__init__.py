"""Datasets: examples with their keys, from image lists and databases, into LMDB for Caffe and shards of our own."""
