"""Ranking (user, item) pairs by the chance of a label: rules, rivals, figures, comparisons."""
