"""Rankers that need no training: rules, co-occurrence, content neighbours and their blend."""
