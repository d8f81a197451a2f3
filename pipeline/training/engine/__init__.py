"""A net over live learned blobs in torch: the only place of this room that imports it."""
