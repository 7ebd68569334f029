"""Losses as pure functions: arrays in, per-example float32 arrays out, ``where=`` masks throughout.

Families are modules; `sum_and_count` is the shared reducer, `compose` adds up named losses. No
models, and no config but compose's table. `jmrec.losses.families` is the index from which the
names here come. ``python -m jmrec.tools.losses`` prints an index.
"""

from jmrec.losses.compose import Composed as Composed
from jmrec.losses.compose import compose as compose
from jmrec.losses.families import *  # noqa: F403
from jmrec.losses.feature import uniform_layers as uniform_layers
from jmrec.losses.imbalance import effective_number_weights as effective_number_weights
from jmrec.losses.logit_topk import tail_logit as tail_logit
from jmrec.losses.mutual_information import MINE_START as MINE_START
from jmrec.losses.reduce import sum_and_count as sum_and_count
from jmrec.losses.schedules import schedule as schedule
