"""Pretrained weights to parameters: Hugging Face folders, GGUF and torch files.

``sources`` reads files, ``table`` fills a model from them and leaves nothing out unsaid,
``provenance`` says where they came from.
"""

from jmrec.convert.table import Entry, convert

__all__ = ["Entry", "convert"]
