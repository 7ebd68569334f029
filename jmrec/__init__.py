"""jmrec: multimodal session recommendation in JAX and Flax.

Large multimodal teachers read what items are and how people move between them; a light student,
distilled from them, ranks the catalogue for an anonymous session. README.md has the two commands
to start with. This is the same from Python; nothing is loaded before it is asked for.

From a folder to a table of results, in three lines; before them a small shop is drawn, and what
makes the run a short one:

  >>> import tempfile
  >>> from jmrec.data.toyshop import ToyShopConfig, write_toyshop
  >>> tmp = tempfile.mkdtemp()
  >>> write_toyshop(f"{tmp}/shop", ToyShopConfig(items=60, sessions=200))
  >>> settings = {"student.train.steps": 50, "student.train.batch_size": 8}
  >>> settings["data.dir"] = f"{tmp}/shop"

  >>> import jmrec
  >>> run = jmrec.run("session:data=folder,size=tiny,encoder=gru4rec", f"{tmp}/run", settings)
  >>> print(run.table())
  toyshop, test split: every target ranked among all 60 items, ...
  Rules without training
  ...
  gru4rec ...
  The best model, ...

It goes on from there; `jmrec.open` opens it again another day:

  >>> len(run.recommend(["t0001", "t0002"], top=3)), run.report.name
  (3, 'report.html')

A ranker of your own, judged by the run's protocol beside its best rule, in ten lines:

  >>> import numpy as np
  >>> class NextRow(jmrec.Ranker):
  ...     name = "next row"
  ...     def scores(self, prefixes, items):  # float [prefixes, items of the slice]
  ...         rows = np.arange(items.start, items.stop)
  ...         return -abs(rows - prefixes.last()[:, None] - 1.0)
  >>> mine = run.evaluate(NextRow())  # on validation; split="test" at the very end
  >>> print(mine.row["name"], "is", mine.difference["verdict"])
  next row is below

A training loop of your own for any session encoder, in twenty lines:

  >>> import jax, optax
  >>> sessions = [items[:12] for items in run.dataset.splits["train"]]
  >>> item = np.full((len(sessions), 12), -1)  # below 0 is padding
  >>> for row, items in enumerate(sessions):
  ...     item[row, : len(items)] = items
  >>> target = np.pad(item[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
  >>> model = jmrec.models.build("gru4rec", items=len(run.dataset.items), width=32)
  >>> params, optimiser = model.init(jax.random.key(0)), optax.adam(1e-2)
  >>> def loss(params):
  ...     states, vectors = model.apply(params, item)
  ...     each = jmrec.losses.full_softmax(states, vectors, target, where=target >= 0)
  ...     return each.sum() / (target >= 0).sum()
  >>> @jax.jit
  ... def step(params, state):
  ...     value, gradient = jax.value_and_grad(loss)(params)
  ...     updates, state = optimiser.update(gradient, state)
  ...     return optax.apply_updates(params, updates), state, value
  >>> state, values = optimiser.init(params), []
  >>> for _ in range(30):
  ...     params, state, value = step(params, state)
  ...     values.append(float(value))
  >>> values[-1] < values[0] - 0.5  # nats
  True

What it has learned is judged like any other (a verdict needs three seeds: a list of three):

  >>> def trained(prefixes, items):
  ...     states, vectors = model.apply(params, prefixes.windows)
  ...     return states[prefixes.window, prefixes.end] @ vectors[items].T
  >>> run.evaluate(trained, trained=True).difference["verdict"]
  'not told apart'

What you can rely on:

============================================= ================================================
public: changes are said in CHANGELOG.md      `jmrec` (all names below), `jmrec.losses`,
first, and an old name stays for one release  `jmrec.serving`, `jmrec.config` in experiment
                                              files, the files results.json and cost.json
experimental: may change in any release,      `jmrec.models`, `jmrec.evaluation`, `jmrec.data`,
which CHANGELOG.md says                       `jmrec.metrics`, `jmrec.kernels`, `jmrec.training`
internal: may change at any time              every other module, and names that begin with _
============================================= ================================================
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jmrec import losses as losses
    from jmrec import models as models
    from jmrec import serving as serving
    from jmrec.api.finished import Judged as Judged
    from jmrec.api.finished import Run as Run
    from jmrec.api.verbs import load_folder as load_folder
    from jmrec.api.verbs import open as open
    from jmrec.api.verbs import prepare as prepare
    from jmrec.api.verbs import run as run
    from jmrec.errors import Preempted as Preempted
    from jmrec.errors import UserError as UserError
    from jmrec.evaluation.protocol import Ranker as Ranker

__version__ = "0.1.0"

_FROM = {
    **dict.fromkeys(("Judged", "Run"), "jmrec.api.finished"),
    **dict.fromkeys(("load_folder", "open", "prepare", "run"), "jmrec.api.verbs"),
    **dict.fromkeys(("Preempted", "UserError"), "jmrec.errors"),
    "Ranker": "jmrec.evaluation.protocol",
    "losses": "",
    "models": "",
    "serving": "",
}
"""Name -> the module that it is from; "" is a module itself."""
_HEAVY = ("Ranker", "losses", "models", "serving")
"""What loads jax at once: its flags have to be set before."""

# Without open: a star import shall not hide Python's own.
__all__ = [
    "Judged", "Preempted", "Ranker", "Run", "UserError", "__version__", "load_folder", "losses",
    "models", "prepare", "run", "serving",
]  # fmt: skip

if not TYPE_CHECKING:  # a wrong name is then an error of mypy's too

    def __getattr__(name):
        """Load a name of the face when it is asked for."""
        if name not in _FROM:
            said = f"module 'jmrec' has no attribute {name!r}"
            raise AttributeError(said, name=name, obj=sys.modules[__name__])
        if name in _HEAVY:
            from jmrec.xla import set_flags_in_time

            set_flags_in_time()
        module = _FROM[name]
        found = getattr(import_module(module), name) if module else import_module(f"jmrec.{name}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*__all__, "open", "__doc__", "__file__", "__name__", "__path__"})
