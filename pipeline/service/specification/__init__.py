"""A tenant's solver and net, judged before anything is queued: parsed in a child, rebuilt from what is known, priced.

`judging.judge` is the way in.  What a text may not say is a `Problem` with its place in the request (a JSON pointer),
its line and its column; nothing of it is edited in place.
"""
