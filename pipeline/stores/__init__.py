"""Where things are kept: the verbs of PROTOCOL 2, one module for each kind of server."""
