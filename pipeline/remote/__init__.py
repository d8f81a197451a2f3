"""A client of the service: what `hathi remote` and `hathi.remote` stand on; it knows the API and no server."""
