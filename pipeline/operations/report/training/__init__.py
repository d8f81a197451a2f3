"""A training as one page: job.py and folder.py gather its facts, page.py shows them.  It only reads."""
