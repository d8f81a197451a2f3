"""What a command does, as values: status, stories, quarantine, ship again, similar, report.  Nothing here prints."""
