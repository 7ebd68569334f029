"""Losses as pure functions: arrays in, per-example float32 arrays out, ``where=`` masks throughout.

Families are modules; `sum_and_count` is the shared reducer. No models, no config.
"""

from jmrec.losses.contrastive import info_nce as info_nce
from jmrec.losses.contrastive import symmetric_info_nce as symmetric_info_nce
from jmrec.losses.disentangle import hsic as hsic
from jmrec.losses.disentangle import orthogonality as orthogonality
from jmrec.losses.language import bag_cross_entropy as bag_cross_entropy
from jmrec.losses.language import token_cross_entropy as token_cross_entropy
from jmrec.losses.logit import catalogue_kl as catalogue_kl
from jmrec.losses.logit import kl as kl
from jmrec.losses.mutual_information import gaussian_log_likelihood as gaussian_log_likelihood
from jmrec.losses.mutual_information import infonce as infonce
from jmrec.losses.mutual_information import jsd as jsd
from jmrec.losses.mutual_information import l1out as l1out
from jmrec.losses.mutual_information import nwj as nwj
from jmrec.losses.mutual_information import smile as smile
from jmrec.losses.mutual_information import vclub as vclub
from jmrec.losses.next_item import bpr as bpr
from jmrec.losses.next_item import full_softmax as full_softmax
from jmrec.losses.reduce import sum_and_count as sum_and_count
