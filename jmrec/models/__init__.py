"""Towers and students as pure functions; the only package that imports flax.linen."""
