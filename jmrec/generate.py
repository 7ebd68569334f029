"""Writing text: a jitted prefill and decode loop over a decoder's cache, on one device or a mesh.

Shapes: B prompts, T padded prompt length.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jmrec.errors import UserError
from jmrec.models.readers.decoder import CACHE_AXES, Cache, DecoderConfig, empty_cache
from jmrec.sharding import DATA_AXES, batch_sharding, process_local, put_tree, shardings
from jmrec.types import Model, Params

MIN_WIDTH = 16
"""Prompts are padded to a power of two from here on, so that few lengths are compiled."""


def pad_prompts(
    prompts: Sequence[Sequence[int]],
    room: int,
    *,
    image_token: int | None = None,
    cut: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Put prompts of different lengths into one array, and check that all of each is there.

    Args:
      prompts: B lists of token ids.
      room: The most tokens that a prompt may have.
      image_token: The token that is replaced by picture tokens.
      cut: Cut long prompts at their end; image tokens are never cut.

    Returns:
      (int32 [B, T], bool [B, T]), padded at the right; T is a power of two, or ``room``.

    Raises:
      UserError: A prompt is empty, would lose image tokens, or is too long (without ``cut``); the
        message says by how many tokens.

    Example:
      >>> text, mask = pad_prompts([[5, 6], [7] * 17], room=40)
      >>> text.shape, mask.sum(1).tolist()
      ((2, 32), [2, 17])
      >>> pad_prompts([[9, 9, 9, 5]], room=2, image_token=9, cut=True)
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: prompt 0 has 4 tokens and there is room for 2: 1 of its 3 image tokens
      would be cut; give it fewer or smaller pictures, or more room.
    """
    kept = []
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} has no token; give every prompt at least one.")
        over = len(prompt) - room
        said = f"prompt {i} has {len(prompt):,} tokens and there is room for {max(room, 0):,}"
        lost = sum(token == image_token for token in prompt[max(room, 0) :])
        if over > 0 and lost:
            shown = sum(token == image_token for token in prompt)
            raise UserError(
                f"{said}: {lost:,} of its {shown:,} image tokens would be cut; give it fewer or "
                "smaller pictures, or more room."
            )
        if over > 0 and (not cut or room < 1):
            raise UserError(f"{said}: it is {over:,} too long; shorten it or give it more room.")
        kept.append(prompt[:room])
    longest = max(map(len, kept), default=1)
    width = min(max(MIN_WIDTH, 2 ** math.ceil(math.log2(longest))), room)
    text = np.zeros((len(kept), width), np.int32)
    mask = np.zeros((len(kept), width), bool)
    for i, prompt in enumerate(kept):
        text[i, : len(prompt)] = prompt
        mask[i, : len(prompt)] = True
    return text, mask


def pick(
    logits_BxV: jax.Array,
    key: jax.Array,
    temperature: jax.Array | float,
    top_p: jax.Array | float,
) -> jax.Array:
    """Choose a token of each row.

    Args:
      logits_BxV: float32 [B, V].
      key: A typed key.
      temperature: Divides the logits; 0 takes the best token.
      top_p: Sample from the fewest tokens whose probabilities sum to at least this.

    Returns:
      int32 [B].

    References:
      Holtzman et al., The Curious Case of Neural Text Degeneration,
      https://arxiv.org/abs/1904.09751

    Example:
      >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
      >>> draw = jax.jit(pick)
      >>> draw(logits, jax.random.key(0), 0.0, 1.0).tolist()
      [1]
      >>> sorted({int(draw(logits, jax.random.key(i), 1.0, 0.8)[0]) for i in range(50)})
      [1, 2]
    """

    def sample() -> jax.Array:
        logits = logits_BxV / temperature
        order = jnp.flip(jnp.sort(logits, -1), -1)
        share = jax.nn.softmax(order, -1)
        before = jnp.cumsum(share, -1) - share
        # The best token is always among them.
        count = jnp.maximum((before < top_p).sum(-1, keepdims=True), 1)
        least = jnp.take_along_axis(order, count - 1, -1)
        allowed = jnp.where(logits >= least, logits, -jnp.inf)
        return jax.random.categorical(key, allowed).astype(jnp.int32)

    def best() -> jax.Array:
        return jnp.argmax(logits_BxV, -1).astype(jnp.int32)

    return jax.lax.cond(jnp.asarray(temperature) > 0, sample, best)


def decoder_config(model: Model) -> DecoderConfig:
    """Return the config of the model that writes: its own, or that of its decoder."""
    config = model.config
    return config if isinstance(config, DecoderConfig) else config.decoder


Generator = Callable[..., list[list[int]]]
"""``(params, prompts, *, seen=None, key=None, temperature=0.0, top_p=1.0) -> tokens``."""


def make_generator(
    model: Model,
    *,
    max_new: int,
    stop: Sequence[int] = (),
    mesh: Mesh | None = None,
    rules: str = "dp",
) -> Generator:
    """Make the function that continues prompts.

    Args:
      model: With the fns ``prefill`` and ``decode_step``.
      max_new: The most tokens to write after a prompt.
      stop: Tokens that end a text; they are not part of it.
      mesh: Spread prompts and cache over this mesh (where parameters were placed).
      rules: The sharding rules of the cache.

    Returns:
      ``(params, prompts, *, seen=None, key=None, temperature=0.0, top_p=1.0, lora=None) ->
      tokens``: prompts are B lists of token ids, ``seen`` their picture tokens [B, N, D],
      ``temperature`` 0 is greedy and needs no key, and the result is B lists of at most ``max_new``
      ids. It compiles once for each B and padded prompt length; temperature and top_p are traced.
      It raises UserError before anything runs where a prompt does not fit the context, or has
      image tokens without pictures.

    Raises:
      UserError: The model has no language head (such as MiniLM), or ``max_new`` is below 1.

    Example:
      >>> from jmrec.models.readers.decoder import decoder
      >>> from jmrec.models.parts.transformer import StackConfig
      >>> tiny = StackConfig(width=8, layers=1, heads=2, kv_heads=1, mlp=8)
      >>> model = decoder(DecoderConfig(vocab=10, stack=tiny))
      >>> write = make_generator(model, max_new=3)
      >>> [len(text) for text in write(model.init(jax.random.key(0)), [[1, 2], [3]])]
      [3, 3]
    """
    if "decode_step" not in model.fns:
        raise UserError(
            "this backbone has no language head and writes no text; choose a decoder, such as "
            "smollm2."
        )
    if max_new < 1:
        raise UserError(f"max_new={max_new} writes nothing; give at least 1.")
    config = decoder_config(model)
    decode = _Decode(model, max_new, jnp.asarray(list(stop) or [-1], jnp.int32), mesh, rules)
    run = jax.jit(decode.run)

    def write(
        params: Params,
        prompts: Sequence[Sequence[int]],
        *,
        seen: Any = None,
        key: jax.Array | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        lora: Params | None = None,
    ) -> list[list[int]]:
        room = config.context - max_new
        text, mask = pad_prompts(prompts, room, image_token=config.image_token)
        _check_pictures(text, config.image_token, seen)
        if temperature > 0 and key is None:
            raise ValueError("sampling needs a key")
        if not len(text):
            return []
        key = jax.random.key(0) if key is None else key
        numbers = jnp.float32(temperature), jnp.float32(top_p)
        result = run(params, _batch(text, mask, seen, mesh), key, *numbers, lora)
        out, length = (np.asarray(x) for x in (process_local(result, mesh) if mesh else result))
        return [out[i, : length[i]].tolist() for i in range(len(text))]

    return write


@dataclass(frozen=True)
class _Decode:
    """The compiled part of a generator: prefill, then one token at a time."""

    model: Model
    max_new: int
    stops: jax.Array
    mesh: Mesh | None
    rules: str

    def run(
        self,
        params: Params,
        batch: dict[str, Any],
        key: jax.Array,
        temperature: jax.Array,
        top_p: jax.Array,
        lora: Params | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the tokens int32 [B, max_new] and how many of each row count, int32 [B]."""
        fns, max_new = self.model.fns, self.max_new
        text, mask, real = batch["text"], batch["mask"], batch["real"]
        cache = empty_cache(decoder_config(self.model), len(text), text.shape[1] + max_new - 1)

        def draw(logits: jax.Array, n: jax.Array | int) -> jax.Array:
            return pick(logits, jax.random.fold_in(key, n), temperature, top_p)

        args = (text, mask, self._placed(cache)) + ((batch["seen"],) if "seen" in batch else ())
        (logits, cache), _ = fns["prefill"](params, *args, lora=lora)
        token = draw(logits, 0)
        done = ~real | jnp.isin(token, self.stops)
        out = jnp.zeros((len(text), max_new), jnp.int32).at[:, 0].set(token)
        length = jnp.where(done, 0, 1)

        def going(state: tuple[Any, ...]) -> jax.Array:
            n, _, _, _, _, done = state
            return (n < max_new) & ~done.all()

        def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
            n, token, cache, out, length, done = state
            (logits, cache), _ = fns["decode_step"](params, token, cache, lora=lora)
            token = draw(logits, n)
            done = done | jnp.isin(token, self.stops)
            return n + 1, token, self._placed(cache), out.at[:, n].set(token), length + ~done, done

        state = (jnp.ones((), jnp.int32), token, self._placed(cache), out, length, done)
        _, _, _, out, length, _ = jax.lax.while_loop(going, step, state)
        return out, length

    def _placed(self, cache: Cache) -> Cache:
        if self.mesh is None:
            return cache
        places = shardings(CACHE_AXES, cache, self.mesh, self.rules)
        return jax.lax.with_sharding_constraint(cache, places)


def _batch(text: np.ndarray, mask: np.ndarray, seen: Any, mesh: Mesh | None) -> dict[str, Any]:
    """Return what `_Decode.run` reads; on a mesh, padded to a multiple of its parts."""
    batch = {"text": text, "mask": mask, "real": np.ones(len(text), bool)}
    if seen is not None:
        batch["seen"] = seen
    if mesh is None:
        return batch
    more = -len(text) % math.prod(mesh.shape[axis] for axis in DATA_AXES)
    # A row of padding reads one token and is done before it writes any.
    batch = {k: np.pad(v, [(0, more)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    batch["mask"][len(text) :, 0] = True
    return put_tree(batch, dict.fromkeys(batch, batch_sharding(mesh)))


def _check_pictures(text: np.ndarray, image_token: int | None, seen: Any) -> None:
    if image_token is None:
        return
    have = 0 if seen is None else seen.shape[1]
    for i, count in enumerate((text == image_token).sum(1)):
        if count > have:
            raise UserError(
                f"prompt {i} has {count:,} image tokens and {have:,} picture tokens were given; "
                "give as many as its pictures have."
            )
