"""The model card of an artefact: what a run knows of it, for `jmrec.report.card`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.evaluation.results import Results
from jmrec.report.card import About, Weights, model_card, weights_in
from jmrec.serving import Artefact, PairArtefact
from jmrec.serving.folder import ANSWERS as ASKED
from jmrec.serving.folder import PAIRS, SESSIONS, lists_of
from jmrec.serving.mixed import MixedArtefact
from jmrec.serving.rules import RuleArtefact
from jmrec.systems.serve_rules import results_of
from jmrec.systems.system import Ranks, RanksPairs

FILES = {
    "serve.json": "what this is: its kind, its settings, the policy, and which run made it",
    "items.json": "ids, titles and windows of availability",
    "student.safetensors": "the student's parameters",
    "ranker.safetensors": "the ranker's parameters",
    "student.stablehlo": "the scores as a program, for servers without Python",
    "index.safetensors": "the cells of the items: which of them an answer looks at",
    "users.json": "the ids of users",
    "checksums.json": "the SHA-256 of every file",
}
OTHER = {".safetensors": "tables that are looked up", ".json": "settings", ".npz": "tables"}


def card_of(
    system: Ranks | RanksPairs,
    row: str,
    artefact: Artefact | RuleArtefact | MixedArtefact | PairArtefact,
) -> Callable[[Path], str]:
    """Return what writes the card, given the folder in which the artefact's files are.

    Args:
      system: The run.
      row: Which of its rows is exported.
      artefact: What is exported.
    """
    try:
        results: Results | None = results_of(system.work.workdir)
    except UserError:  # not evaluated, or damaged: the card says that nothing is known
        results = None
    policy, features, provenance = _parts_of(artefact)

    def card(folder: Path) -> str:
        names = [*(path.name for path in folder.iterdir()), "checksums.json"]
        about = About(
            row=row,
            answers=ASKED[PAIRS if isinstance(artefact, PairArtefact) else SESSIONS],
            provenance=provenance,
            policy=lists_of(policy.correction),
            files={name: FILES.get(name) or OTHER.get(Path(name).suffix, "") for name in names},
            foreign=features and not hasattr(system, "reader"),
            weights=weights_of(system) if features else (),
        )
        return model_card(results, about)

    return card


def _parts_of(artefact: Any) -> tuple[Any, bool, dict[str, Any]]:
    """Return the policy of an artefact, whether it reads features of items, its provenance."""
    if isinstance(artefact, MixedArtefact):
        reads = bool(artefact.student.features or artefact.rules.features)
        return artefact.rules.policy, reads, artefact.student.provenance
    if isinstance(artefact, PairArtefact):
        return artefact.policy, bool(artefact.params), artefact.provenance
    return artefact.policy, bool(artefact.features), artefact.provenance


def weights_of(system: Ranks | RanksPairs) -> list[Weights]:
    """Return the pretrained weights by which a run read its items; [] where there are none."""
    try:
        provenance = getattr(getattr(system, "reader", None), "provenance", None)
    except UserError as error:  # the weights have gone since
        return [Weights("items", f"not there any more ({error})")]
    return list(weights_in(provenance))
