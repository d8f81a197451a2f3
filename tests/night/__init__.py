"""Three in the morning: faults are injected into a running deployment, and what a person finds about each is judged."""
