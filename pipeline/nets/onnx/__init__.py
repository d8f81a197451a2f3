"""ONNX models: read, checked, described; and whether each row of a graph is its own image's alone."""
