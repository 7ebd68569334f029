"""Several fits of one task in one program: seeds of a student, each as it would be alone.

The state has a first axis of members. Which of them are updated is an argument: a member that has
stopped, has failed or waits for the others is handed through as it is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jmrec.errors import UserError
from jmrec.flops import matmul_flops
from jmrec.sharding import put_batch, replicated
from jmrec.training.step import TrainStep
from jmrec.types import Batch, HParams, TrainState


class PopulationStep:
    """The updates of several members of one task in one call of the device.

    On an accelerator the members are computed at once (``vmap``), on a CPU one after another
    (``lax.map``), where those that rest cost nothing. There it is as fast as fits one by one, which
    share one program too.

    Args:
      alone: The step of one member, which is what each does.
      members: How many there are, 2 or more.
      at_once: Whether they are computed at once; None decides by the device.

    Attributes:
      compilations: How often the step was traced: once per batch shape.
    """

    def __init__(self, alone: TrainStep, members: int, *, at_once: bool | None = None) -> None:
        self.alone, self.members = alone, members
        self.compilations = 0
        self._flops: dict[tuple[tuple[int, ...], ...], int] = {}
        platform = alone.mesh.devices.flat[0].platform
        self._at_once = platform != "cpu" if at_once is None else at_once
        # Traced once, though its shapes are asked for before it is called.
        self._updates = jax.jit(alone.updates)
        own = jax.tree.map(lambda leaf: leaf.sharding, alone.abstract)
        stacked = jax.tree.map(
            lambda each: NamedSharding(each.mesh, PartitionSpec(None, *each.spec)), own
        )
        whole = replicated(alone.mesh)
        self.jitted = jax.jit(
            self._call,
            in_shardings=(stacked, None, None, whole, whole),
            out_shardings=(stacked, whole),
            donate_argnums=0,
        )
        quick = {"xla_backend_optimization_level": 0}  # nothing is computed: it is all compilation
        self._join = jax.jit(_stacked, out_shardings=stacked, compiler_options=quick)
        self._member = jax.jit(_row, out_shardings=own, compiler_options=quick)

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """Return the states of all members as one, each array with a first axis of them."""
        joined: TrainState = self._join(*states)
        return joined

    def member(self, state: TrainState, k: int) -> TrainState:
        """Return a copy of the state of member k, as `TrainStep` has it."""
        own: TrainState = self._member(state, np.int32(k))
        return own

    def place_numbers(self, numbers: Sequence[HParams]) -> HParams:
        """Place what is traced, of each member its own."""
        return self.alone.place_whole(jax.tree.map(lambda *x: np.stack(x), *numbers))

    def advance(
        self,
        state: TrainState,
        frozen: Any,
        hosts: Sequence[Batch],
        hparams: HParams,
        active: Sequence[bool],
    ) -> tuple[TrainState, dict[str, Any], int]:
        """Do the updates of the members that are active.

        Args:
          state: From `join`; it is used up.
          frozen: What is never optimised, the same for all.
          hosts: The host batches of each member, of one shape; those of one that is not active
            are not read.
          hparams: From `place_numbers`.
          active: Whether each is.

        Returns:
          (state, metrics as (sum, count) with a first axis of members, FLOPs of one member).

        Raises:
          UserError: So many do not fit into the memory of the device.
        """
        stacked = {name: np.stack([np.asarray(each[name]) for each in hosts]) for name in hosts[0]}
        lead = 1 + (self.alone.updates_per_call > 1)
        batches = put_batch(stacked, self.alone.mesh, lead=lead)
        which = self.alone.place_whole(np.asarray(active))
        given = (state, frozen, batches, hparams, which)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves((frozen, batches)))
        if shapes not in self._flops:  # the trace is the one that the call compiles
            self._flops[shapes] = matmul_flops(self.jitted.trace(*given).jaxpr) // self.members
        try:
            return *self.jitted(*given), self._flops[shapes]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"{self.members} at once do not fit into the memory of the device; set a "
                f"train.population below {self.members}, 1 for one after another (of trials a "
                "smaller --population)."
            ) from error

    def _call(
        self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams, active: jax.Array
    ) -> tuple[TrainState, dict[str, Any]]:
        self.compilations += 1  # runs when traced, not when called

        def one(given: tuple[Any, ...]) -> Any:
            own, batch, numbers, moves = given
            _, shapes = jax.eval_shape(self._updates, own, frozen, batch, numbers)
            return jax.lax.cond(
                moves,
                lambda: self._updates(own, frozen, batch, numbers),
                lambda: (own, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)),
            )

        given = (state, batches, hparams, active)
        done: Any = jax.vmap(one)(given) if self._at_once else jax.lax.map(one, given)
        return done


def population_step(alone: TrainStep, members: int) -> TrainStep | PopulationStep:
    """Return the step of so many members, made once: of one it is the step itself."""
    if members == 1:
        return alone
    if members not in alone.populations:
        alone.populations[members] = PopulationStep(alone, members)
    found: PopulationStep = alone.populations[members]
    return found


def _stacked(*states: TrainState) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


def _row(state: TrainState, k: jax.Array) -> Any:
    return jax.tree.map(lambda x: x[k], state)
