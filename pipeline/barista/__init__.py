"""A barista: a process that holds a solver's net, and customers that have it compute on memory that both see."""
