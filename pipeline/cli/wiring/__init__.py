"""What commands share: from settings to stages at work, their beginning and their end."""
