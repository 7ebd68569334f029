"""jmrec: multimodal session recommendation in JAX and Flax.

Large multimodal teachers read what items are and how people move between them; a light student,
distilled from them, ranks the catalogue for an anonymous session. See README.md for the two
commands to start with.
"""

__version__ = "0.1.0"
