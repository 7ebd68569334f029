"""Commands beside the main line."""
