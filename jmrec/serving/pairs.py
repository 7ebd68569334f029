"""The files of a serving artefact that ranks items for users.

=================== ======================================================================
serve.json          format, the served row, its model and size or its rule, calibration,
                    threshold, what the label means, policy, provenance
ranker.safetensors  the model's parameters, named by their path in the tree; none of a rule
items.safetensors   of each item what was known at the end of the data: numbers, vectors, ids
items.json          ids, titles, windows of availability
users.safetensors   the same of each user, and in the last row of one who is not known
users.json          the users' ids, and what people said: the verdicts
rated.safetensors   which items each user has rated
checksums.json      the SHA-256 of each
=================== ======================================================================

Shapes: V items, U users, F numbers, K categories, L past items, W the width of a part.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jmrec.data.schema import AVOID, WANT
from jmrec.data.verdicts import DROP, KEEP, Verdict
from jmrec.errors import UserError
from jmrec.evaluation.pairs.rules import BOTH_MEANS, ITEM_MEAN, USER_MEAN
from jmrec.evaluation.policy import Policy, make_policy, parse_correction
from jmrec.features import read_features, write_features
from jmrec.files import write_json
from jmrec.metrics.calibration import Platt
from jmrec.models import codec
from jmrec.models.dlrm import DlrmConfig
from jmrec.serving.folder import (
    PAIRS,
    SERVE,
    Card,
    check_sizes,
    flatten_params,
    lists_of,
    read_arrays,
    read_folder,
    read_items,
    texts,
    unflatten_params,
    write_folder,
    write_items,
)
from jmrec.types import Params

FORMAT = 1
RULES = (ITEM_MEAN, USER_MEAN, BOTH_MEANS)
USERS = "users.json"
RANKER, ITEM_TABLE = "ranker.safetensors", "items.safetensors"
USER_TABLE, RATED = "users.safetensors", "rated.safetensors"
RATED_STOP = "rated_stop"
UNKNOWN_USER = ""
"""The id of the last row of the users' table."""


@dataclass(frozen=True)
class Line:
    """From a ranker's logit to a probability, and what is too high.

    Attributes:
      added: To the logit, so that it stands for the data's own ratio of the classes.
      platt: Fitted on validation.
      threshold: Of the probability, chosen on validation.
    """

    added: float
    platt: Platt
    threshold: float


@dataclass(frozen=True)
class PairArtefact:
    """What is served.

    Attributes:
      row: The served row of the results table.
      config: Of its model; None where a rule is served.
      params: Of its model, numpy arrays; {} of a rule.
      prior: The share of positive rows in training, which a rule leans on.
      parts: What the model reads of a pair: (name, "item" or "user").
      of_user: bool [F], the numbers that are the user's.
      line: From its logits to what is shown.
      label: What the positive class is, in the words of dataset.toml.
      label_means: `jmrec.data.schema.AVOID` or `WANT`.
      ids: V item ids.
      titles: V titles.
      user_ids: U user ids.
      items: Tables of the items. Of a model "numbers" float32 [V, F], "id_row" int32 [V],
        "category" int32 [V, K] and for each part of items "part/NAME" float32 [V, W] and "ok/NAME"
        bool [V]; of a rule "count" and "sum" float64 [V].
      users: The same of users, [U + 1, ...], and of a model "past" int32 [U + 1, L] item rows,
        "past_label" int32 and "past_mask" bool. The last row is of one who is not known.
      rated: U + 1 arrays of item rows, ascending, which each user has rated.
      policy: Which items may be recommended.
      verdicts: What people said.
      provenance: Which run and stages made it, for people.
    """

    row: str
    config: DlrmConfig | None
    params: Params
    prior: float
    parts: tuple[tuple[str, str], ...]
    of_user: np.ndarray
    line: Line
    label: str
    label_means: str
    ids: list[str]
    titles: list[str]
    user_ids: list[str]
    items: dict[str, np.ndarray]
    users: dict[str, np.ndarray]
    rated: list[np.ndarray]
    policy: Policy
    verdicts: tuple[Verdict, ...]
    provenance: dict[str, Any]


def write_pairs(artefact: PairArtefact, out: Path, card: Card | None = None) -> None:
    """Write an artefact, whole or not at all; an older artefact is replaced.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    write_folder(out, lambda side: _write_files(artefact, side), card)


def _write_files(artefact: PairArtefact, folder: Path) -> None:
    line = artefact.line
    facts = {
        "kind": PAIRS,
        "format": FORMAT,
        "row": artefact.row,
        **({"model": "rule"} if artefact.config is None else codec.encode(artefact.config)),
        "prior": artefact.prior,
        "parts": [list(each) for each in artefact.parts],
        "of_user": artefact.of_user.tolist(),
        "logit": {"added": line.added, "scale": line.platt.scale, "shift": line.platt.shift},
        "threshold": line.threshold,
        "label": artefact.label,
        "label_means": artefact.label_means,
        "policy": lists_of(artefact.policy.correction),
        "provenance": artefact.provenance,
    }
    write_json(folder / SERVE, facts)
    write_items(folder, artefact.ids, artefact.titles, artefact.policy)
    said = {name: [getattr(each, name) for each in artefact.verdicts]
            for name in ("item", "user", "verdict")}  # fmt: skip
    write_json(folder / USERS, {"ids": artefact.user_ids, "verdicts": said})
    save_file(flatten_params(artefact.params), folder / RANKER)
    whose = {"stage": "export"}
    write_features(folder / ITEM_TABLE, artefact.items, artefact.ids, whose)
    stop = np.cumsum([len(rows) for rows in artefact.rated], dtype=np.int64)
    users = {**artefact.users, RATED_STOP: stop}
    write_features(folder / USER_TABLE, users, [*artefact.user_ids, UNKNOWN_USER], whose)
    save_file({"items": np.concatenate(artefact.rated).astype(np.int32)}, folder / RATED)


def read_pairs(folder: Path) -> PairArtefact:
    """Read what `write_pairs` wrote.

    Raises:
      UserError: There is none, it is damaged, or a newer jmrec wrote it.
    """
    return read_folder(folder, PAIRS, FORMAT, _parse)


def _parse(folder: Path, facts: Mapping[str, Any]) -> PairArtefact:
    ids, titles, window = read_items(folder)
    people = json.loads((folder / USERS).read_bytes())
    user_ids = texts(people, "ids")
    if len({*user_ids, UNKNOWN_USER}) <= len(user_ids):
        raise ValueError(f"{USERS}: an id stands there twice, or is empty")
    items = read_features(folder / ITEM_TABLE, ids).arrays
    users = read_features(folder / USER_TABLE, [*user_ids, UNKNOWN_USER]).arrays
    config, flat = _config(folder, facts)
    parts = _parts(facts)
    of_user = np.array(facts["of_user"], bool)
    if config is not None:
        _check_model(config, parts, of_user, items, users)
    elif facts["row"] not in RULES:
        raise ValueError(f"{SERVE}: {str(facts['row'])[:40]!r} is no rule")
    else:
        for table, rows in ((items, len(ids)), (users, len(user_ids) + 1)):
            for name in ("count", "sum"):
                _check(table, name, (rows,), np.float64, 0, math.inf)
    where = str(folder / SERVE)
    lists = {name: each for name, each in dict(facts["policy"]).items() if each is not None}
    means = facts["label_means"]
    if means not in (AVOID, WANT):
        raise ValueError(f"{SERVE}: label_means is neither {AVOID} nor {WANT}")
    return PairArtefact(
        row=str(facts["row"]),
        config=config,
        params=unflatten_params(flat),
        prior=_number(facts, "prior", 0, 1),
        parts=parts,
        of_user=of_user,
        line=_line(facts),
        label=str(facts["label"]),
        label_means=means,
        ids=ids,
        titles=titles,
        user_ids=user_ids,
        items=items,
        users={name: table for name, table in users.items() if name != RATED_STOP},
        rated=_rated(read_arrays(folder / RATED), users, len(ids)),
        policy=make_policy(ids, True, parse_correction(lists, where), window, where),
        verdicts=_verdicts(people["verdicts"], set(ids)),
        provenance=dict(facts["provenance"]),
    )


def _config(
    folder: Path, facts: Mapping[str, Any]
) -> tuple[DlrmConfig | None, dict[str, np.ndarray]]:
    flat = read_arrays(folder / RANKER)
    if facts["model"] == "rule":
        return None, {}
    check_sizes(facts.get("config", {}), flat, RANKER)
    try:
        config = codec.decode(facts)
    except UserError as error:
        raise UserError(f"{folder / SERVE}: {error}") from None
    if not isinstance(config, DlrmConfig):
        raise ValueError(f"{SERVE}: {str(facts['model'])[:40]!r} ranks no pairs")
    return config, flat


def _parts(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = []
    for each in facts["parts"]:
        name, of = each
        if not isinstance(name, str) or of not in ("item", "user"):
            raise ValueError(f"{SERVE}: a part is neither of an item nor of a user")
        found.append((name, of))
    return tuple(found)


def _check_model(
    config: DlrmConfig,
    parts: tuple[tuple[str, str], ...],
    of_user: np.ndarray,
    items: Mapping[str, np.ndarray],
    users: Mapping[str, np.ndarray],
) -> None:
    """Refuse tables that are not what a model reads: it would read beside them."""
    if len(parts) != len(config.parts) or of_user.shape != (config.numbers,):
        raise ValueError(f"{SERVE}: parts or of_user are not those of the model")
    sides = {"item": (items, config.items), "user": (users, config.users)}
    rows = {of: len(table["id_row"]) for of, (table, _) in sides.items()}
    for of, (table, known) in sides.items():
        _check(table, "numbers", (rows[of], config.numbers), np.float32)
        _check(table, "id_row", (rows[of],), np.int32, 0, known - 1 if known else math.inf)
    for (name, of), width in zip(parts, config.parts, strict=True):
        _check(sides[of][0], f"part/{name}", (rows[of], width), np.float32)
        _check(sides[of][0], f"ok/{name}", (rows[of],), np.bool_)
    _check(items, "category", (rows["item"], len(config.categories)), np.int32, 0, math.inf)
    if (items["category"] >= np.array(config.categories, np.int64)).any():
        raise ValueError("a category is beyond the model's table")
    past = (rows["user"], users["past"].shape[-1])
    _check(users, "past", past, np.int32, 0, rows["item"] - 1)
    _check(users, "past_label", past, np.int32, 0, 2)
    _check(users, "past_mask", past, np.bool_)


def _check(
    table: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise a ValueError where an array is missing or is not as it has to be."""
    array = table[name]
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, not {list(shape)}")
    if array.size and array.dtype != np.bool_ and not least <= array.min() <= array.max() <= most:
        raise ValueError(f"{name} holds a number out of its range")


def _number(facts: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < most:
        raise ValueError(f"{SERVE}: {name}={str(value)[:20]} is not between {least} and {most}")
    return float(value)


def _line(facts: Mapping[str, Any]) -> Line:
    logit = facts["logit"]
    added, shift = (_number(logit, name, -math.inf, math.inf) for name in ("added", "shift"))
    scale = _number(logit, "scale", 0, math.inf)
    # A threshold of 0 or 1 calls all, or none.
    return Line(added, Platt(scale, shift), _number(facts, "threshold", -1e-9, 1 + 1e-9))


def _rated(
    found: Mapping[str, np.ndarray], users: Mapping[str, np.ndarray], count: int
) -> list[np.ndarray]:
    items, stop = found["items"], users[RATED_STOP]
    _check(found, "items", (len(items),), np.int32, 0, count - 1)
    _check(users, RATED_STOP, (len(stop),), np.int64, 0, len(items))
    if (np.diff(stop) < 0).any() or stop[-1] != len(items):
        raise ValueError(f"{RATED_STOP} is not ascending to the {len(items)} rated items")
    return np.split(items, stop[:-1])


def _verdicts(said: Mapping[str, Any], ids: set[str]) -> tuple[Verdict, ...]:
    columns = [texts(said, name) for name in ("item", "user", "verdict")]
    if not set(columns[0]) <= ids or not set(columns[2]) <= {KEEP, DROP}:
        raise ValueError(f"{USERS}: a verdict is neither, or of no item")
    return tuple(Verdict(*each) for each in zip(*columns, strict=True))
