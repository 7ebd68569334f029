"""One run in several processes: who is part of it, and what happens when one of them is gone.

``settings`` reads from the environment whether there is a cluster at all; ``keeper`` is the process
that was started by hand or by a launcher, imports no jax and outlives what jax may do; ``member``
is its child, which joins the others and does the work.
"""
