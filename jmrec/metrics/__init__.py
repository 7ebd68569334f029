"""Metrics: what is computed from ranks, and how sure one may be of it. Plain numpy."""
