"""Hathi: image URLs in a Hadoop lake become image features in the same lake."""

__version__ = "0.1.0"
