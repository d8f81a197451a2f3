"""What was done, for people: a day or a shipment as one page, and how things stand.  It only reads.

ledger.py reads what `c/` says of shipments; gather.py makes the facts of a page from it, page.py the page from those.
"""
