"""The command line: `hathi COMMAND`."""
