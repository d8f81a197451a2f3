"""A comparison of workers of a linear model as one HTML page."""
