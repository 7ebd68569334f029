"""Who reads a session: one encoder a file, and the table of their names."""
