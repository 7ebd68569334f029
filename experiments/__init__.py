"""Experiments: settings, one hypothesis a file; `common` holds what they share."""
