"""Archives of pictures from strangers: tar, tar.gz and zip, read as a stream, bounded, in a child.

`reading.read` is the way in.  Every entry of an archive ends as exactly one thing: a picture, a folder, or an entry
that is rejected for a reason of `entries.REASONS`.  What makes the whole archive useless is a `Refused` with a reason
of `entries.WHOLE`.
"""
