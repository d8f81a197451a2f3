"""Real servers for the tests: each installs itself into a cache folder, starts on a free port, and can be hurt."""
