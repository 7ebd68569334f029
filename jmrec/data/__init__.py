"""Catalogue folders and ToyShop, prepared once; their sessions, and batches addressed by step."""
