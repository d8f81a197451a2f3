"""Training jobs on real servers of Kubernetes, whose pods are processes (tests/servers/kube.py)."""
