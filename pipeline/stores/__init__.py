"""Where things are kept: the verbs of docs/protocol.md 2, one module for each kind of server."""
