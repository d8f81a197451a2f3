"""`hathi doctor`: a host from the ground up, one small probe after the other, each with a deadline of its own."""
