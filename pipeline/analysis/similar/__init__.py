"""The items of a partner whose features are nearest to an item's, or to an image's (`hathi similar`)."""
