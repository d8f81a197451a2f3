"""Linear models by stochastic gradient descent, on sparse and dense data, by many workers over one shared vector or
over private copies: the loops are compiled by numba and run without the interpreter's lock."""
