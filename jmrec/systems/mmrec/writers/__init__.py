"""Who describes an item or a user in words: writers behind one contract, and their table."""
