"""Systems: which stages there are, in which order, and what can be asked of a run of them."""
