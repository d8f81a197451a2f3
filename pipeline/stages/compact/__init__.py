"""One current table of each partner: for each item the feature of the greatest shipment (`hathi compact`).

A table appears as a delivered folder does: written under a name that nobody else uses, then moved in one step to
`_current/<partner>/<number>`, where the first one wins; then the index names it.  A table is never changed; the next
one is merged from it and from what was delivered since.  So a kill at any instant leaves a table or none.
"""
