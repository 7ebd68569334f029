"""Systems: which stages there are, in which order, and what a finished run of them can do."""
