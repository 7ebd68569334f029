"""The session encoders by name, and what every one of them looks like from outside.

A new encoder is a file beside this one (a frozen config dataclass, a Linen module with
``item_table`` and ``encode_session``, a function that builds a `Model` of it) and a line in
`ENCODERS`. Its config may have these fields, which an experiment and its data decide:

=================== ========================================================================
features            width of the items' features, 0 for none
ids                 rows of the table of item ids, 0 for none (`ItemVectors` reads both)
stack               a `StackConfig`; an encoder of another kind may have ``width`` instead
gaps, events        whether time gaps are read, and how many event types; without such a field
                    ``encode_session`` is not given ``gap``, or ``event``
=================== ========================================================================

All its other fields are set by ``--config.student.options.NAME=value``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_type_hints

import jax
import jax.numpy as jnp

from jmrec.config import choose, config_from, nearest
from jmrec.errors import SettingError, UserError
from jmrec.kernels.spread import keep
from jmrec.models.linen import once
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.bert4rec import Bert4recConfig, bert4rec
from jmrec.models.sessions.caser import CaserConfig, caser
from jmrec.models.sessions.core import CoreConfig, core
from jmrec.models.sessions.gru4rec import Gru4recConfig, gru4rec
from jmrec.models.sessions.hstu import HstuConfig, hstu
from jmrec.models.sessions.ligr import LigrConfig, ligr
from jmrec.models.sessions.narm import NarmConfig, narm
from jmrec.models.sessions.sasrec import SasrecConfig, sasrec
from jmrec.models.sessions.srgnn import SrgnnConfig, srgnn
from jmrec.models.sessions.stamp import StampConfig, stamp
from jmrec.models.sessions.student import StudentConfig, student
from jmrec.models.sessions.transfer import TransferConfig, transfer_tower
from jmrec.types import Model, Params


@dataclass(frozen=True)
class SessionEncoder:
    """A line of the table.

    Attributes:
      config: The frozen dataclass of its size, which no other encoder has.
      build: ``config -> Model`` with the functions ``item_table`` and ``encode_session``.
      causal: Whether ``encode_session`` gives a state for each position [B, L, D], made from the
        items up to there; else it gives one state for the whole session [B, D].
      reads: What ``encode_session`` reads of a session's items: "vectors", rows of its own
        ``item_table(params, features or None, ids, id_dropout=...)``; "raw", what that has as its
        intermediate of this name: the vectors before they became what states are compared with;
        or "features", theirs or their tokens, where the function is
        ``item_table(params, features)``.
      packs: Whether ``mask`` may be int32, which session of its row a position belongs to (from 1,
        0 is padding): several short ones then share a row in training, and no session sees another.
      fills: Whether it is trained to name hidden items in place of next ones: its model has
        ``fill(params, x, mask, hidden, ...)`` too, the states [B, L, D] of sessions of which some
        items are hidden, and its config ``hide`` and ``last`` (see `jmrec.tasks.cloze`).
    """

    config: type
    build: Callable[[Any], Model]
    causal: bool = True
    reads: Literal["vectors", "raw", "features"] = "vectors"
    packs: bool = False
    fills: bool = False


ENCODERS: dict[str, SessionEncoder] = {
    "student": SessionEncoder(StudentConfig, student, packs=True),
    "sasrec": SessionEncoder(SasrecConfig, sasrec, packs=True),
    "transfer": SessionEncoder(TransferConfig, transfer_tower, reads="features", packs=True),
    "gru4rec": SessionEncoder(Gru4recConfig, gru4rec, packs=True),
    "narm": SessionEncoder(NarmConfig, narm, packs=True),
    "stamp": SessionEncoder(StampConfig, stamp, packs=True),
    "hstu": SessionEncoder(HstuConfig, hstu, packs=True),
    "ligr": SessionEncoder(LigrConfig, ligr, packs=True),
    "core": SessionEncoder(CoreConfig, core, reads="raw", packs=True),
    "caser": SessionEncoder(CaserConfig, caser, packs=True),
    "srgnn": SessionEncoder(SrgnnConfig, srgnn, causal=False),
    "bert4rec": SessionEncoder(Bert4recConfig, bert4rec, causal=False, fills=True),
}


def encoder_name(config: Any) -> str:
    """Return the name of the encoder that a config is of.

    Raises:
      ValueError: It is of none in the table.

    Example:
      >>> encoder_name(StudentConfig(features=3, ids=0))
      'student'
    """
    for name, each in ENCODERS.items():
        if type(config) is each.config:
            return name
    raise ValueError(f"{type(config).__name__} is the config of no session encoder")


def causal(config: Any) -> bool:
    """Return whether one pass over a session gives the states after all its items.

    Example:
      >>> causal(StudentConfig(features=3, ids=0)), causal(SrgnnConfig(features=3, ids=0))
      (True, False)
    """
    return ENCODERS[encoder_name(config)].causal


def packs(config: Any) -> bool:
    """Return whether several sessions may share a row of what an encoder reads.

    Example:
      >>> packs(StudentConfig(features=3, ids=0))
      True
    """
    return ENCODERS[encoder_name(config)].packs


def fills(config: Any) -> bool:
    """Return whether an encoder is trained to name hidden items.

    Example:
      >>> fills(StudentConfig(features=3, ids=0)), fills(Bert4recConfig(features=3, ids=0))
      (False, True)
    """
    return ENCODERS[encoder_name(config)].fills


def id_table_rows(config: Any) -> int:
    """Return the rows of an encoder's table of item ids, 0 where it has none.

    Example:
      >>> id_table_rows(StudentConfig(features=3, ids=5))
      5
    """
    return int(getattr(config, "ids", 0))


def session_config(
    name: str,
    settings: Mapping[str, Any],
    *,
    features: int,
    ids: int,
    gaps: bool,
    events: int,
    group: str = "student.",
) -> Any:
    """Return the config of a session encoder from an experiment's settings and its data.

    Args:
      name: A key of `ENCODERS`.
      settings: The group ``student`` of an experiment: ``stack``, and ``options`` for the fields
        that only this encoder has.
      features: Width of the items' features, 0 for none.
      ids: Rows of the id table, 0 for none.
      gaps: Whether the time between events is known and to be read.
      events: How many types of events are read, 0 for none.
      group: Where the settings stand, for messages.

    Returns:
      The frozen dataclass of the table's entry.

    Raises:
      UserError: The encoder or an option is unknown, a value does not fit, or the encoder can not
        read what it is to read.

    Example:
      >>> stack = {"width": 16, "heads": 2}
      >>> session_config("student", {"stack": stack}, features=3, ids=0, gaps=False, events=0).stack
      StackConfig(width=16, layers=2, heads=2, ...)
    """
    choose(f"{group}encoder", name, tuple(ENCODERS))
    kind = ENCODERS[name].config
    known = get_type_hints(kind)
    given: dict[str, Any] = {"features": features, "ids": ids, "gaps": gaps, "events": events}
    for what, width in (("features", features), ("ids", ids)):
        if width and what not in known:
            raise UserError(f"the encoder {name} reads no {what} of items; give it none.")
    if not features and "ids" not in known:
        raise UserError(f"the encoder {name} reads the features of items; give it some.")
    stack = settings.get("stack")
    if stack is not None and known.get("stack") is StackConfig:
        given["stack"] = config_from(StackConfig, dict(stack), f"{group}stack")
    elif stack is not None:
        given["width"] = stack["width"]
    given = {field: value for field, value in given.items() if field in known}
    free = [each.name for each in fields(kind) if each.name not in given]
    options = dict(settings.get("options") or {})
    for field, value in options.items():
        if field not in free:
            guess = nearest(field, free)
            more = f"did you mean {guess!r}?" if guess else f"it has {', '.join(free) or 'none'}."
            raise UserError(f"{group}options.{field}: {name} has no such option; {more}")
        given[field] = config_from(known[field], value, f"{group}options.{field}")
    try:
        return kind(**given)
    except SettingError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{group}options: {error}.") from error


def session_model(config: Any) -> Model:
    """Return a session encoder; fns ``item_table``, ``encode_session`` and ``last_state``.

    ``encode_session(params, x, mask, gap=None, event=None, *, key, train, taps, dropout)`` returns
    float32 [B, L, D], the state after each item of x [B, L, ...], whose mask is bool [B, L], or
    int32 for an encoder that `packs`. Each state depends on the items of its session up to there
    only: for an encoder that is not causal each prefix is encoded by itself, and what is tapped has
    a first axis of the L prefixes.

    ``last_state``, of the same arguments with a bool mask, returns float32 [B, D], the state after
    the last item of each session: all that is needed of one that is not causal to score once.

    Args:
      config: The config of an encoder in the table.

    Raises:
      ValueError: It is of none in the table.
    """
    name = encoder_name(config)
    return _promised(name, ENCODERS[name], config)


@once
def _promised(name: str, entry: SessionEncoder, config: Any) -> Model:
    """Return what an encoder's own function builds, with the functions that all promise."""
    model = entry.build(config)
    known = {each.name for each in fields(entry.config)}

    def read(
        params: Params, x: Any, mask: jax.Array, **settings: Any
    ) -> tuple[jax.Array, dict[str, Any]]:
        states, tapped = model.fns["encode_session"](params, x, mask, **settings)
        if states.shape[:-1] != (mask.shape if entry.causal else mask.shape[:1]):
            raise ValueError(
                f"{name}: encode_session gave {states.shape} for sessions {mask.shape}; an encoder "
                "that is causal gives [B, L, D], another one [B, D]"
            )
        return states, tapped

    def context_of(gap: jax.Array | None, event: jax.Array | None) -> dict[str, jax.Array]:
        given = {
            "gap": gap if "gaps" in known else None,
            "event": event if "events" in known else None,
        }
        return {each: array for each, array in given.items() if array is not None}

    def encode_session(
        params: Params,
        x: Any,
        mask: jax.Array,
        gap: jax.Array | None = None,
        event: jax.Array | None = None,
        **settings: Any,
    ) -> tuple[jax.Array, dict[str, Any]]:
        context = context_of(gap, event)
        if entry.causal:
            return read(params, x, mask, **context, **settings)
        return _each_prefix(read, params, x, mask, context, **settings)

    def last_state(
        params: Params,
        x: Any,
        mask: jax.Array,
        gap: jax.Array | None = None,
        event: jax.Array | None = None,
        **settings: Any,
    ) -> tuple[jax.Array, dict[str, Any]]:
        if not entry.causal:
            given = _seen(mask, (x, context_of(gap, event)))
            return read(params, given[0], mask, **given[1], **settings)
        states, tapped = encode_session(params, x, mask, gap, event, **settings)
        last = jnp.maximum(mask.sum(1) - 1, 0)
        return jnp.take_along_axis(states, last[:, None, None], 1)[:, 0], tapped

    own = {"encode_session": encode_session, "last_state": last_state}
    return replace(model, fns={**model.fns, **own})


def _seen(mask: jax.Array, arrays: Any) -> Any:
    """Return arrays [B, L, ...] as they are where a mask [B, L] is True, else 0."""

    def kept(array: jax.Array) -> jax.Array:
        some = mask.reshape(*mask.shape, *[1] * (array.ndim - 2))
        return jnp.where(some, array, jnp.zeros((), array.dtype))

    return jax.tree.map(kept, arrays)


def _each_prefix(
    read: Callable[..., Any],
    params: Params,
    x: Any,
    mask: jax.Array,
    context: Mapping[str, jax.Array],
    key: jax.Array | None = None,
    **settings: Any,
) -> tuple[jax.Array, dict[str, Any]]:
    """Encode the prefix that ends at each position by itself: states [B, L, D].

    One length of prefix after the other, and recomputed in the backward pass, so that the memory is
    that of one. A length that no session has costs nothing.
    """
    x, mask, context = jax.tree.map(jnp.asarray, (x, mask, dict(context)))
    places = jnp.arange(mask.shape[1])

    def encode(place: jax.Array) -> Any:
        before = mask & (places <= place)
        own = None if key is None else jax.random.fold_in(key, place)
        shown, known = _seen(before, (x, context))
        return read(params, shown, before, **known, key=own, **settings)

    shapes = jax.eval_shape(encode, places[0])

    def nothing(place: jax.Array) -> Any:
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    @jax.checkpoint
    def some(place: jax.Array) -> Any:
        return jax.lax.cond(mask[:, place].any(), encode, nothing, place)

    states, tapped = jax.lax.map(some, places)
    return jnp.moveaxis(states, 0, 1), tapped


def item_vectors(
    model: Model, params: Params, catalogue: Mapping[str, Any], **settings: Any
) -> jax.Array:
    """Return the item vectors [V, D] that the states of a session encoder are compared with.

    Args:
      model: From `session_model`.
      params: Its parameters.
      catalogue: What is known of V items: "features" [V, F] where there are some, and "ids"
        int32 [V], the rows of the id table.
      **settings: ``key``, ``train`` and ``id_dropout``, for an encoder that has its own vectors.
    """
    table, features = model.fns["item_table"], catalogue.get("features")
    if ENCODERS[encoder_name(model.config)].reads == "features":
        return keep(table(params, features)[0])
    return keep(table(params, features, catalogue["ids"], **settings)[0])


def session_rows(
    model: Model, params: Params, catalogue: Mapping[str, Any], vectors: Any, **settings: Any
) -> Any:
    """Return what ``encode_session`` reads of V items: one array, or a dict of arrays, [V, ...].

    Args:
      model: From `session_model`.
      params: Its parameters.
      catalogue: As in `item_vectors`; "tokens", name -> [V, ...], where sessions of those are read.
      vectors: From `item_vectors`.
      **settings: Those of `item_vectors`, the same key too.
    """
    reads = ENCODERS[encoder_name(model.config)].reads
    if reads == "vectors":
        return vectors
    if reads == "raw":
        table, features = model.fns["item_table"], catalogue.get("features")
        return keep(table(params, features, catalogue["ids"], taps=("raw",), **settings)[1]["raw"])
    tokens = catalogue.get("tokens")
    return catalogue["features"] if tokens is None else tokens
