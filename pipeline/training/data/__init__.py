"""The data layers of a net as sources of batches: a batch is a pure function of the data, the seed and its number."""
