"""Who reads items: three item readers behind one contract, and the table of their names."""
