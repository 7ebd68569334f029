"""Evaluation: the protocol, the rules that need no training, and what is reported of them."""
