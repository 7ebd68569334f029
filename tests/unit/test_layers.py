"""The house's order: who may import whom, and how long a file may be.

The table is that of the design's section 3. A module imports from lower layers or from its own
folder, whether at the top of the file, inside a function or under ``TYPE_CHECKING``.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = [
    {"types", "errors"},
    {"kernels", "config", "tracking", "metrics", "preemption", "files", "cluster"}
    | {"flops", "memory"},
    {"losses", "models", "sharding", "data"},
    {"convert", "checkpoint", "features", "generate"},
    {"training", "tasks", "evaluation"},
    {"serving", "report"},
    {"systems"},
    {"tools"},
    {"commands"},
    {"main"},
    {"__main__"},
]
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
# A package -> the only part of jmrec that may import it.
ONLY = {"flax.linen": "models", "orbax": "checkpoint"}
# What is shown is what stands in the files: the report knows their schema and no more.
REPORT_READS = ("jmrec.evaluation.results", "jmrec.report")
NEVER = {"tensorflow", "torch", "torchvision"}
NO_JAX = {"config"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
# Experiments are documents: settings, and nothing that a setting could not need.
EXPERIMENT_IMPORTS = {"jmrec.config", "ml_collections"}
MAX_LINES = 500


def imported(tree: ast.AST, module: tuple[str, ...], is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that a file imports.

    ``from a import b`` yields both ``a`` and ``a.b``, because ``b`` may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if is_package else module[:-1]
                parent = package[: len(package) - (node.level - 1)]
                base = ".".join([*parent, *([base] if base else [])])
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def check_module(path: Path, root: Path) -> Iterator[str]:
    """Yield what a file of the package does that it must not."""
    place = path.relative_to(root)
    module = place.with_suffix("").parts
    is_package = module[-1] == "__init__"
    module = module[:-1] if is_package else module
    source = path.read_text(encoding="utf-8")
    if (count := len(source.splitlines())) > MAX_LINES:
        yield f"{place}: {count} lines; more than {MAX_LINES} are two modules"
    own = module[1] if len(module) > 1 else ""
    if own and own not in LAYER:
        yield f'{place}: "{own}" is not in the table of layers'
        return
    seen = set()
    for line, name in imported(ast.parse(source), module, is_package):
        where = f"{place}:{line}"
        for package, owner in ONLY.items():
            if inside(name, package) and own != owner:
                yield f"{where}: only {owner} may import {package}"
        top = name.split(".")[0]
        if top in NEVER:
            yield f"{where}: nothing may import {top}"
        if own in NO_JAX and top in JAX:
            yield f"{where}: {own} imports no {top}"
        if own == "report" and (
            top in JAX or (top == "jmrec" and not name.startswith(REPORT_READS))
        ) and name != "jmrec.evaluation":  # fmt: skip
            yield f"{where}: report reads the schema of results, not {name}"
        parts = name.split(".")
        if top != module[0] or len(parts) < 2 or (line, parts[1]) in seen:
            continue
        seen.add((line, parts[1]))
        other = parts[1]
        if other == own:
            continue
        if other not in LAYER:
            if (root / "jmrec" / other).exists() or (root / "jmrec" / f"{other}.py").exists():
                yield f'{where}: "{other}" is not in the table of layers'
            continue  # a name of jmrec/__init__.py, such as __version__
        if not own or LAYER[other] >= LAYER[own]:
            mine = f"{own} (layer {LAYER[own]})" if own else "jmrec/__init__"
            yield f"{where}: {mine} imports {other} (layer {LAYER[other]})"


def check_experiment(path: Path, root: Path) -> Iterator[str]:
    """Yield what an experiment file imports besides jmrec.config and the standard library."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for line, name in imported(tree, path.relative_to(root).with_suffix("").parts, False):
        allowed = any(inside(name, package) for package in EXPERIMENT_IMPORTS)
        if not allowed and name.split(".")[0] not in sys.stdlib_module_names:
            yield f"{path.relative_to(root)}:{line}: an experiment may not import {name}"


def violations(root: Path) -> list[str]:
    found = [
        each for path in sorted(root.glob("jmrec/**/*.py")) for each in check_module(path, root)
    ]
    for path in sorted(root.glob("experiments/**/*.py")):
        found += check_experiment(path, root)
    return list(dict.fromkeys(found))


def test_the_house_keeps_its_order() -> None:
    assert len(list(ROOT.glob("jmrec/**/*.py"))) > 20
    assert violations(ROOT) == []


def test_no_test_or_launcher_is_too_long() -> None:
    files = [
        path for each in ("tests", "experiments", "launch") for path in ROOT.glob(f"{each}/**/*")
    ]
    long = {
        str(path.relative_to(ROOT)): count
        for path in files
        if path.suffix in (".py", ".sh")
        and (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        (
            "jmrec/losses/a.py",
            "from jmrec.tasks.session import x\n",
            "losses (layer 2) imports tasks",
        ),
        ("jmrec/losses/a.py", "import jmrec.models.layers\n", "losses (layer 2) imports models"),
        ("jmrec/losses/a.py", "from jmrec import training\n", "imports training (layer 4)"),
        ("jmrec/losses/a.py", "from ..tasks import session\n", "imports tasks (layer 4)"),
        ("jmrec/losses/__init__.py", "from ..data import x\n", "imports data (layer 2)"),
        ("jmrec/features.py", "def f():\n    from . import training\n", "jmrec/features.py:2: fea"),
        (
            "jmrec/tasks/a.py",
            "from jmrec.evaluation import rules\n",
            "imports evaluation (layer 4)",
        ),
        ("jmrec/__init__.py", "from jmrec.main import entry\n", "jmrec/__init__ imports main"),
        ("jmrec/tasks/a.py", "import flax.linen as nn\n", "only models may import flax.linen"),
        ("jmrec/tasks/a.py", "from flax import linen\n", "only models may import flax.linen"),
        (
            "jmrec/training/a.py",
            "from orbax.checkpoint import v1\n",
            "only checkpoint may import orbax",
        ),
        ("jmrec/data/a.py", "def f():\n    import tensorflow as tf\n", "nothing may import tens"),
        ("jmrec/convert/a.py", "import torch.nn\n", "nothing may import torch"),
        ("jmrec/config/a.py", "import jax.numpy as jnp\n", "config imports no jax"),
        ("jmrec/report/a.py", "from jmrec.data import x\n", "report reads the schema"),
        ("jmrec/report/a.py", "import jax\n", "report reads the schema"),
        ("jmrec/report/a.py", "from jmrec.evaluation import summary\n", "report reads the schema"),
        ("jmrec/helpers.py", "x = 1\n", "not in the table"),
        ("jmrec/data/a.py", "x = 1\n" * 501, "501 lines"),
        ("experiments/a.py", "from jmrec.data import toyshop\n", "may not import jmrec.data"),
        ("experiments/a.py", "import numpy as np\n", "may not import numpy"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, said: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    found = violations(tmp_path)
    assert len(found) >= 1
    assert said in " | ".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jmrec/losses/a.py", "from jmrec.losses.b import x\nfrom . import c\nfrom .d import e\n"),
        ("jmrec/tasks/a.py", "from jmrec import losses\nimport jmrec.features, jax, optax\n"),
        ("jmrec/models/a.py", "import flax.linen as nn\n"),
        ("jmrec/checkpoint.py", "from orbax.checkpoint import v1 as ocp\n"),
        ("jmrec/main.py", "from jmrec import __version__\nfrom jmrec.systems import tpad\n"),
        ("jmrec/data/a.py", "import tensorflow_datasets as tfds\n" + "x = 1\n" * 499),
        ("experiments/a.py", "import math\nfrom jmrec.config import ConfigDict\n"),
    ],
)
def test_what_is_in_order_passes(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []
