"""Serving: a folder that recommends without workdir, teacher or backbone.

Example::

    from jmrec.serving import load

    served = load("serve/")
    for each in served.recommend(["12", "57", "3"], top=10):
        print(each["item_id"], each["title"], each["score"])
    lists = served.recommend_batch([["12", "57"], ["3"]], top=10)
"""

from jmrec.serving.artefact import Artefact, check_target, read, write
from jmrec.serving.served import Served, load, serve

__all__ = ["Artefact", "Served", "check_target", "load", "read", "serve", "write"]
