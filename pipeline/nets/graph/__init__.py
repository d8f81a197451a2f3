"""A net as values: its layers and who reads what, its learned blobs, the operations that compute it."""
