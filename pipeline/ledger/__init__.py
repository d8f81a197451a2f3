"""What is written down in the bucket and on the lake, and the protocol by which it is (docs/protocol.md)."""
