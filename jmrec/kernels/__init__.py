"""Primitives for large catalogues: no [batch, catalogue] array, no padded item table."""

from jmrec.kernels.catalogue import catalogue_best as catalogue_best
from jmrec.kernels.catalogue import catalogue_cross_entropy as catalogue_cross_entropy
from jmrec.kernels.catalogue import catalogue_divergence as catalogue_divergence
from jmrec.kernels.catalogue import catalogue_logsumexp as catalogue_logsumexp
from jmrec.kernels.divergence import chunked_kl as chunked_kl
from jmrec.kernels.parallel import parallel_kl as parallel_kl
from jmrec.kernels.parallel import parallel_logsumexp as parallel_logsumexp
from jmrec.kernels.parallel import (
    parallel_softmax_cross_entropy as parallel_softmax_cross_entropy,
)
from jmrec.kernels.parallel import parallel_topk as parallel_topk
from jmrec.kernels.softmax import chunked_logsumexp as chunked_logsumexp
from jmrec.kernels.softmax import chunked_softmax_cross_entropy as chunked_softmax_cross_entropy
from jmrec.kernels.spread import ROWS as ROWS
from jmrec.kernels.spread import align as align
from jmrec.kernels.spread import keep as keep
from jmrec.kernels.spread import pick as pick
from jmrec.kernels.topk import chunked_topk as chunked_topk
