"""What features look like, in one pass and bounded memory; and how far two runs are apart (`hathi stats`)."""
