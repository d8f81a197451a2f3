"""Faults under a store, the same for conformance suite, simulation and crash tests."""
