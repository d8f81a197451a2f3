"""Training on Kubernetes: the operator that keeps jobs going, and what people type about them."""
