"""OK, Warning or Alert: facts are gathered at the edges (look.py), judged by a pure function (judge.py), told on change
(step.py).  The same facts are what metrics show."""
