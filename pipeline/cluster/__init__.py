"""Boxes that work as one: worker processes of a host, and Apache Spark."""
