"""How good a net is: its answers on labelled examples, by the engine and the preparation that serve."""
