"""The index: every public loss by family, which is what `jmrec.losses` offers under its name.

`compose` finds a loss here, the index page lists it, and a config chooses one of `NEXT_ITEM` or
`DIVERGENCES` by its name.
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from jmrec.losses.attention import attention_transfer, minilm_relations
from jmrec.losses.calls import NextItem as _NextItem
from jmrec.losses.calls import over_batch as _over_batch
from jmrec.losses.calls import over_catalogue as _over_catalogue
from jmrec.losses.calls import over_samples as _over_samples
from jmrec.losses.calls import over_scores as _over_scores
from jmrec.losses.calls import over_share as _over_share
from jmrec.losses.contrastive import (
    crd,
    info_nce,
    sigmoid_contrast,
    supervised_contrast,
    symmetric_info_nce,
)
from jmrec.losses.disentangle import coral, cross_covariance, hsic, orthogonality
from jmrec.losses.feature import feature_cosine, feature_mse, fitnets, layer_map
from jmrec.losses.imbalance import (
    class_balanced,
    class_weighted,
    focal,
    logit_adjusted,
    pairwise_logistic,
)
from jmrec.losses.language import bag_cross_entropy, token_cross_entropy
from jmrec.losses.logit import (
    catalogue_kl,
    decoupled_kd,
    importance_weighted,
    jensen_shannon,
    kl,
    reverse_kl,
    skew_kl,
)
from jmrec.losses.logit_topk import catalogue_topk, topk_kl
from jmrec.losses.mutual_information import (
    club,
    gaussian_log_likelihood,
    infonce,
    jsd,
    l1out,
    mine,
    nwj,
    smile,
    vclub,
)
from jmrec.losses.next_item import (
    bce,
    bpr,
    full_softmax,
    gbce,
    in_batch_softmax,
    sampled_softmax,
)
from jmrec.losses.ranking import (
    list_mle,
    listnet,
    pairwise_margin,
    plackett_luce,
    rank_distil,
)
from jmrec.losses.relational import (
    angle_relations,
    cka,
    distance_relations,
    similarity_preserving,
)

_Loss = _Callable[..., _Any]

NEXT_ITEM = {
    each.loss.__name__: each
    for each in (
        _NextItem(full_softmax, _over_catalogue),
        _NextItem(sampled_softmax, _over_samples),
        _NextItem(in_batch_softmax, _over_batch),
        _NextItem(bpr, _over_scores),
        _NextItem(bce, _over_scores),
        _NextItem(gbce, _over_share),
    )
}
"""Which of the catalogue's items comes next; each with how it is called."""

DIVERGENCES: tuple[_Loss, ...] = (kl, reverse_kl, jensen_shannon, skew_kl)
"""Of a teacher's and a student's logits."""

FAMILIES: dict[str, tuple[_Loss, ...]] = {
    "next item": tuple(each.loss for each in NEXT_ITEM.values()),
    "language": (token_cross_entropy, bag_cross_entropy),
    "logit": (
        *DIVERGENCES,
        catalogue_kl,
        decoupled_kd,
        topk_kl,
        catalogue_topk,
        importance_weighted,
    ),
    "ranking": (listnet, list_mle, plackett_luce, rank_distil, pairwise_margin),
    "feature": (feature_mse, feature_cosine, fitnets, layer_map),
    "relational": (distance_relations, angle_relations, similarity_preserving, cka),
    "attention": (attention_transfer, minilm_relations),
    "contrastive": (info_nce, symmetric_info_nce, sigmoid_contrast, crd, supervised_contrast),
    "mutual information": (
        infonce,
        nwj,
        mine,
        jsd,
        smile,
        club,
        vclub,
        l1out,
        gaussian_log_likelihood,
    ),
    "disentangle": (orthogonality, cross_covariance, hsic, coral),
    "imbalance": (class_weighted, focal, logit_adjusted, class_balanced, pairwise_logistic),
}

LOSSES = {loss.__name__: loss for family in FAMILIES.values() for loss in family}
