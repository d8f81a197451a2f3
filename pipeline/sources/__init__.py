"""Where image refs are on a lake, and how they are seen and read there."""
