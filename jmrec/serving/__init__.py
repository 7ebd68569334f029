"""Serving: a folder that recommends without workdir, teacher or backbone, by a student or a rule.

Example::

    from jmrec.serving import load

    served = load("serve/")
    for each in served.recommend(["12", "57", "3"], top=10):
        print(each["item_id"], each["title"], each["score"])
    lists = served.recommend_batch([[12, 57], ["3", "gone"]], top=10)
    print(lists[1].unknown)  # ids that the catalogue does not know are skipped: ["gone"]

What was exported of a system that ranks pairs of a user and an item is loaded by `load_pairs`::

    served = load_pairs("serve/")
    found = served.recommend("eve", top=10)
"""

from jmrec.serving.artefact import Artefact, read, write
from jmrec.serving.folder import check_target
from jmrec.serving.pairs import PairArtefact, read_pairs, write_pairs
from jmrec.serving.served import Answer, Served, load, serve
from jmrec.serving.served_pairs import ServedPairs, load_pairs

__all__ = [
    "Answer", "Artefact", "PairArtefact", "Served", "ServedPairs", "check_target", "load",
    "load_pairs", "read", "read_pairs", "serve", "write", "write_pairs",
]  # fmt: skip
