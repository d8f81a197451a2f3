"""Nets that answer: held in processes of their own, which the API server begins, asks, and ends by size."""
