"""Every public loss with the checks that it has; one that lacks a check fails by its name.

The values of a loss are held by a closed form in one of its cases (``truth`` in cases.py), or by a
closed form or an independent implementation in a test that `TRUTHS` names. The other checks are
read off the test functions themselves: whom test_contract.py runs them for, and what stands in the
docstring (doctests run with every pytest run of the package).
"""

import ast
import doctest
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from jmrec import losses
from tests.unit.losses import test_contract
from tests.unit.losses.cases import CASES

HERE = Path(__file__).parent

TRUTHS = {
    "full_softmax": "test_next_item.py::test_full_softmax_against_rax",
    "sampled_softmax": "test_next_item.py::test_sampled_softmax_by_hand",
    "in_batch_softmax": "test_next_item.py::test_in_batch_softmax_by_hand",
    "bpr": "test_next_item.py::test_bpr_against_rax",
    "bce": "test_next_item.py::test_bce_without_calibration_against_optax",
    "token_cross_entropy": "test_language.py::test_against_optax",
    "bag_cross_entropy": (
        "test_language.py::test_bag_cross_entropy_is_the_cross_entropy_of_the_weighted_set"
    ),
    "kl": "test_logit.py::test_kl_against_scipy",
    "catalogue_kl": "test_logit.py::test_catalogue_kl_is_kl_of_the_logits",
    "reverse_kl": "test_logit.py::test_reverse_kl_against_scipy",
    "jensen_shannon": "test_logit.py::test_jensen_shannon_against_scipy",
    "skew_kl": "test_logit.py::test_skew_kl_against_scipy",
    "decoupled_kd": "test_logit.py::test_decoupled_kd_by_its_two_parts",
    "topk_kl": "test_logit.py::test_topk_kl_against_merged_probabilities",
    "catalogue_topk": "test_logit.py::test_catalogue_topk_is_topk_kl_of_the_logits",
    "importance_weighted": "test_logit.py::test_importance_weighted_by_hand",
    "listnet": "test_ranking.py::test_listnet_against_rax",
    "list_mle": "test_ranking.py::test_list_mle_against_rax",
    "plackett_luce": "test_ranking.py::test_plackett_luce_in_turn",
    "rank_distil": "test_ranking.py::test_rank_distil_by_hand",
    "pairwise_margin": "test_ranking.py::test_pairwise_margin_against_rax",
    "feature_mse": "test_feature.py::test_feature_mse_against_sklearn",
    "feature_cosine": "test_feature.py::test_feature_cosine_against_scipy",
    "fitnets": "test_feature.py::test_fitnets_is_the_mse_of_the_projection",
    "layer_map": "test_feature.py::test_layer_map_averages_over_its_pairs",
    "distance_relations": "test_relational.py::test_distance_relations_against_scipy",
    "angle_relations": "test_relational.py::test_angle_relations_against_loops",
    "similarity_preserving": "test_relational.py::test_similarity_preserving_against_numpy",
    "cka": "test_relational.py::test_cka_by_centred_kernels",
    "attention_transfer": "test_attention.py::test_attention_transfer_against_numpy",
    "minilm_relations": "test_attention.py::test_minilm_relations_head_by_head",
    "info_nce": "test_contrastive.py::test_against_loops",
    "symmetric_info_nce": "test_contrastive.py::test_against_loops",
    "sigmoid_contrast": "test_contrastive.py::test_sigmoid_contrast_against_loops",
    "crd": "test_contrastive.py::test_crd_is_the_classifier_of_the_paper",
    "supervised_contrast": "test_contrastive.py::test_supervised_contrast_against_loops",
    "infonce": "test_mutual_information.py::test_formulas_by_hand",
    "nwj": "test_mutual_information.py::test_formulas_by_hand",
    "mine": "test_mutual_information.py::test_mine_is_the_donsker_varadhan_bound",
    "jsd": "test_mutual_information.py::test_formulas_by_hand",
    "smile": "test_mutual_information.py::test_formulas_by_hand",
    "club": "test_mutual_information.py::test_club_with_the_true_conditional",
    "vclub": "test_mutual_information.py::test_upper_bounds_over_all_pairs_by_hand",
    "l1out": "test_mutual_information.py::test_upper_bounds_over_all_pairs_by_hand",
    "gaussian_log_likelihood": (
        "test_mutual_information.py::test_gaussian_log_likelihood_against_scipy"
    ),
    "orthogonality": "test_disentangle.py::test_orthogonality_is_the_mean_squared_correlation",
    "cross_covariance": "test_disentangle.py::test_cross_covariance_against_numpy",
    "hsic": "test_disentangle.py::test_hsic_against_the_textbook",
    "coral": "test_disentangle.py::test_coral_against_numpy",
    "class_weighted": "test_imbalance.py::test_class_weighted_against_sklearn",
    "focal": "test_imbalance.py::test_focal_against_optax",
    "logit_adjusted": "test_imbalance.py::test_logit_adjusted_against_numpy",
    "class_balanced": "test_imbalance.py::test_class_balanced_is_focal_with_those_weights",
    "pairwise_logistic": "test_imbalance.py::test_pairwise_logistic_by_all_pairs",
}

CONTRACT = {
    "mask invariance of value and gradient": (
        test_contract.test_what_is_masked_changes_neither_value_nor_gradient
    ),
    "masked equals subset": test_contract.test_masked_equals_subset,
    "all masked": test_contract.test_all_masked_is_zero_with_zero_gradients,
    "one example": test_contract.test_one_example_is_finite,
    "check_grads": test_contract.test_gradients_against_finite_differences,
    "bfloat16": test_contract.test_bfloat16_is_within_a_hundredth_of_float32,
    "jit": test_contract.test_jit,
    "vmap": test_contract.test_vmap,
}
VALID = "entries that are not valid"
CHECKS = {"truth", "doctest", *CONTRACT}
ADD = {
    **dict.fromkeys(CONTRACT, "a Case of its name in tests/unit/losses/cases.py"),
    VALID: "entries=(...) in its Case in tests/unit/losses/cases.py",
    "truth": "truth=... in its Case in tests/unit/losses/cases.py",
    "doctest": "an example in its docstring that calls it and shows a result",
}
"""Check -> what to add, and where, to have it."""

# What is public and no loss, and the test that holds it.
OTHERS = {
    "DIVERGENCES": "test_table.py::test_a_config_chooses_of_the_index_alone",
    "FAMILIES": "test_table.py::test_every_public_loss_has_every_check",
    "LOSSES": "test_table.py::test_every_public_loss_has_every_check",
    "NEXT_ITEM": "test_table.py::test_a_config_chooses_of_the_index_alone",
    "MINE_START": "test_mutual_information.py::test_the_average_of_mine_moves_as_told",
    "Composed": "test_compose.py::test_weights_and_floats_are_traced_and_compile_nothing_anew",
    "compose": "test_compose.py::test_a_sum_by_hand",
    "schedule": "test_compose.py::test_schedules",
    "sum_and_count": "test_language.py::test_sum_and_count",
    "tail_logit": "test_logit.py::test_tail_logit_is_exact_where_float32_can_tell",
    "uniform_layers": "test_feature.py::test_uniform_layers",
    "effective_number_weights": "test_imbalance.py::test_effective_number_weights_by_the_formula",
}


def public() -> set[str]:
    """The names of `jmrec.losses` that are neither private nor modules."""
    return {
        name
        for name, value in vars(losses).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def names_in(place: str) -> set[str]:
    """The names that a test (``file::function``) uses, itself or by a helper at its file's top."""
    file, test = place.split("::")
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    tops = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def used(node: ast.AST) -> set[str]:
        loads = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        return loads | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}

    found = used(tops[test])
    return found.union(*(used(tops[name]) for name in found & tops.keys()))


def run_for(test: object) -> set[str]:
    """The losses whose cases a test of the contract is run for, unless it is skipped."""
    marks = {mark.name: mark for mark in test.pytestmark}  # type: ignore[attr-defined]
    assert set(marks) == {"parametrize"}, "a check that is skipped is none"
    return {name.split(",")[0] for name in marks["parametrize"].args[1]}


CLOSED = run_for(test_contract.test_values_are_those_of_the_closed_form)
"""The losses of which a case has a closed form."""


def checks_of(name: str) -> set[str]:
    """The checks that a public loss has."""
    loss = getattr(losses, name)
    found = {check for check, test in CONTRACT.items() if name in run_for(test)}
    if name in CLOSED or (name in TRUTHS and name in names_in(TRUTHS[name])):
        found.add("truth")
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(loss) or "")
    calls = [each.source for each in examples if f"{name}(" in each.source]
    if calls and any(each.want for each in examples):
        found.add("doctest")
    if name in run_for(test_contract.test_what_is_not_valid_changes_neither_value_nor_gradient):
        found.add(VALID)
    return found


def wanted(name: str) -> set[str]:
    """The checks that it must have: one more where it masks the entries of a list."""
    masks = "valid" in inspect.signature(getattr(losses, name)).parameters
    return CHECKS | {VALID} if masks else CHECKS


@pytest.mark.parametrize("name", sorted(public() - OTHERS.keys()))
def test_every_public_loss_has_every_check(name: str) -> None:
    lacks = sorted({ADD[check] for check in wanted(name) - checks_of(name)})
    assert not lacks, f"{name} lacks {'; '.join(lacks)}"
    assert checks_of(name) == wanted(name)


def test_the_lists_name_what_is_there_and_nothing_else() -> None:
    named = {name.split(",")[0] for name in CASES}
    anywhere = set(TRUTHS).union(public() - OTHERS.keys(), losses.LOSSES, named)
    for there, place in (
        (
            public() - OTHERS.keys(),
            "an import in jmrec/losses/families.py (or OTHERS in this file)",
        ),
        (set(TRUTHS) | CLOSED, ADD["truth"]),
        (set(losses.LOSSES), "its family in jmrec/losses/families.py"),
        (named, "a Case in tests/unit/losses/cases.py"),
    ):
        lacks = sorted(anywhere - there)
        assert not lacks, f"{lacks}: add {place}, or take the name out everywhere else"
    assert OTHERS.keys() <= public()
    for name, place in OTHERS.items():
        assert name in names_in(place) or place.startswith("test_table.py")


def test_a_loss_without_its_checks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new public name has none of them, and one that lacks a truth is told so."""

    def novel(x: int) -> int:
        return x

    monkeypatch.setattr(losses, "novel", novel, raising=False)
    assert "novel" in public() - OTHERS.keys()
    assert checks_of("novel") == set()
    monkeypatch.setitem(TRUTHS, "kl", TRUTHS["bpr"])
    assert wanted("kl") - checks_of("kl") == {"truth"}


def test_a_config_chooses_of_the_index_alone() -> None:
    assert [each.loss for each in losses.NEXT_ITEM.values()] == [*losses.FAMILIES["next item"]]
    assert set(losses.DIVERGENCES) < set(losses.FAMILIES["logit"])
    for name, each in losses.NEXT_ITEM.items():
        assert losses.LOSSES[name] is each.loss
    for name, loss in losses.LOSSES.items():
        assert getattr(losses, name) is loss
