"""What the parity tests share: torch's random weights and the two bounds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

MODULE, MODEL = 1e-5, 1e-4
"""How far jmrec may be from torch, for one module and for a whole model; nobody relaxes them."""


class TorchModel:
    """The tensors of a torch model as a source for `jmrec.convert.convert`."""

    path = Path("random")
    files = ()
    metadata: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, model: Any) -> None:
        self.tensors = {k: v.detach().numpy() for k, v in model.state_dict().items()}

    def names(self) -> list[str]:
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        return self.tensors[name][index]


def shapes(model: Any) -> Any:
    """Return the shapes of a model's parameters."""
    return jax.eval_shape(model.init, jax.random.key(0))


def shake(model: Any) -> Any:
    """Return a torch model in evaluation with every parameter, norms and biases too, random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval().float()


@contextmanager
def watch(**modules: Any) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Collect (input, output) of torch modules, by name, while torch runs."""
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, args: Any, kwargs: Any, out: Any) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            out = out[0] if isinstance(out, tuple) else out
            seen[name] = (x.detach().numpy(), out.detach().numpy())

        return hook

    handles = [m.register_forward_hook(keep(n), with_kwargs=True) for n, m in modules.items()]
    yield seen
    for handle in handles:
        handle.remove()


def layer(params: Any, index: int) -> Any:
    """Return the parameters of one block of a stack."""
    return jax.tree.map(lambda p: p[index], params)
