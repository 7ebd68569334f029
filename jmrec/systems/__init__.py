"""Systems: which stages, in which order, and the identity of each stage."""
