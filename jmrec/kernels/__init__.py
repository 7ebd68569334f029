"""Primitives for large catalogues: no [batch, catalogue] array, no padded item table."""

from jmrec.kernels.divergence import chunked_kl as chunked_kl
from jmrec.kernels.parallel import parallel_kl as parallel_kl
from jmrec.kernels.parallel import (
    parallel_softmax_cross_entropy as parallel_softmax_cross_entropy,
)
from jmrec.kernels.parallel import parallel_topk as parallel_topk
from jmrec.kernels.softmax import chunked_logsumexp as chunked_logsumexp
from jmrec.kernels.softmax import chunked_softmax_cross_entropy as chunked_softmax_cross_entropy
from jmrec.kernels.topk import chunked_topk as chunked_topk
