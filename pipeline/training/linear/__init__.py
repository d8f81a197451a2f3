"""Linear models on features: losses, objectives over tables of any length, and a solver that goes to the optimum."""
