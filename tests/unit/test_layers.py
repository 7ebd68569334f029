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
    {
        "types",
        "errors",
        "files",
        "usage",
        "flops",
        "preemption",
        "lock",
        "processes",
        "terminal",
        "xla",
    },
    {"kernels", "config", "metrics", "tracking"},
    {"losses", "sharding", "cluster", "data", "models"},
    {"convert", "checkpoint", "features", "generate"},
    {"training", "tasks", "evaluation"},
    {"serving", "report"},
    {"systems"},
    {"tools", "api"},
    {"commands"},
    {"main"},
    {"__main__"},
]
BASE = ("errors", "xla", "types")
"""What the other modules of layer 0 may import too, and of these the later ones the earlier."""
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
# A package -> the only part of jmrec that may import it.
ONLY = {"flax.linen": "models", "orbax": "checkpoint", "apache_beam": "data"}
# What is shown is what stands in the files: the report knows their schema and no more.
REPORT_READS = ("jmrec.evaluation.results", "jmrec.report", "jmrec.terminal", "jmrec.usage")
NEVER = {"tensorflow", "torch", "torchvision"}
NO_JAX = {"config"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
# Experiments are documents: settings, and nothing that a setting could not need.
EXPERIMENT_IMPORTS = {"jmrec.config", "ml_collections", "experiments.common"}
MAX_LINES = 500
MAX_FUNCTION = 80


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


def face_may(tree: ast.Module, line: int) -> int:
    """Return the first layer that jmrec/__init__.py may not import at a line.

    All import it, so that it loads nothing: it states its names for mypy, and finds them when they
    are asked for.
    """
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or 0) and isinstance(node, ast.If):
            condition = ast.unparse(node.test)
            return {"TYPE_CHECKING": LAYER["api"] + 1, "not TYPE_CHECKING": 1}.get(condition, 0)
    return 0


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
    seen, tree = set(), ast.parse(source)
    for line, name in imported(tree, module, is_package):
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
        mine = BASE.index(own) if own in BASE else len(BASE)
        if other == own or (own and other in BASE[:mine]):
            continue
        if other not in LAYER:
            if (root / "jmrec" / other).exists() or (root / "jmrec" / f"{other}.py").exists():
                yield f'{where}: "{other}" is not in the table of layers'
            continue  # a name of jmrec/__init__.py, such as __version__
        top_of_own = LAYER[own] if own else face_may(tree, line)
        if LAYER[other] >= top_of_own:
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


def graph(root: Path) -> dict[str, set[str]]:
    """Return module -> the modules of the package that it imports, wherever in the file."""
    files = {}
    for path in root.glob("jmrec/**/*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names = imported(
            ast.parse(path.read_text(encoding="utf-8")),
            tuple(module.split(".")),
            path.name == "__init__.py",
        )
        found[module] = {name for _, name in names if name in files} - {module}
    # The face names what it loads when it is asked: by then its own file has run.
    found["jmrec"] = set()
    return found


def folders(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return folder -> the folders beside it that its modules import."""
    found: dict[str, set[str]] = {}
    for module, others in modules.items():
        for other in others:
            a, b = module.split("."), other.split(".")
            same = next((n for n, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), None)
            if same is not None:
                found.setdefault(".".join(a[: same + 1]), set()).add(".".join(b[: same + 1]))
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return what lies on or behind a circle of arrows; [] where there is none."""
    left = {name: set(others) for name, others in arrows.items()}
    while True:
        ends = {name for name, others in left.items() if not others & left.keys()}
        if not ends:
            return sorted(left)
        left = {name: others for name, others in left.items() if name not in ends}


def test_imports_have_no_circle() -> None:
    modules = graph(ROOT)
    assert len(modules) > 100
    assert circle(modules) == []
    assert circle(folders(modules)) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    sources = {"a/x": "from jmrec.b import y\n", "b/y": "x = 1\n", "b/z": "import jmrec.a.w\n"}
    for name, source in {**sources, "a/w": "x = 1\n"}.items():
        path = tmp_path / f"jmrec/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert circle(graph(tmp_path)) == []  # no module is on one, but the two folders are
    assert circle(folders(graph(tmp_path))) == ["jmrec.a", "jmrec.b"]


def long_functions(root: Path) -> dict[str, int]:
    """Return the functions of the package that are longer than `MAX_FUNCTION` lines."""
    return {
        f"{path.relative_to(root)}:{node.name}": size
        for path in root.glob("jmrec/**/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    }


def test_no_function_is_too_long(tmp_path: Path) -> None:
    assert long_functions(ROOT) == {}
    (tmp_path / "jmrec").mkdir()
    (tmp_path / "jmrec/a.py").write_text("def f():\n" + "    x = 1\n" * MAX_FUNCTION)
    assert long_functions(tmp_path) == {"jmrec/a.py:f": MAX_FUNCTION + 1}


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
        (
            "jmrec/losses/a.py",
            "import jmrec.models.parts.transformer\n",
            "losses (layer 2) imports models",
        ),
        ("jmrec/losses/a.py", "from jmrec import training\n", "imports training (layer 4)"),
        ("jmrec/errors.py", "import jmrec.types\n", "errors (layer 0) imports types"),
        ("jmrec/losses/a.py", "from ..tasks import session\n", "imports tasks (layer 4)"),
        ("jmrec/losses/__init__.py", "from ..data import x\n", "imports data (layer 2)"),
        ("jmrec/features.py", "def f():\n    from . import training\n", "jmrec/features.py:2: fea"),
        (
            "jmrec/tasks/a.py",
            "from jmrec.evaluation import rules\n",
            "imports evaluation (layer 4)",
        ),
        ("jmrec/__init__.py", "from jmrec.main import entry\n", "jmrec/__init__ imports main"),
        ("jmrec/__init__.py", "from jmrec.errors import x\n", "jmrec/__init__ imports errors"),
        (
            "jmrec/__init__.py",
            "if TYPE_CHECKING:\n    from jmrec.commands import x\n",
            "jmrec/__init__ imports commands",
        ),
        (
            "jmrec/__init__.py",
            "if not TYPE_CHECKING:\n\n    def f():\n        from jmrec.data import x\n",
            "jmrec/__init__ imports data",
        ),
        ("jmrec/api/a.py", "from jmrec.tools import inspect\n", "api (layer 7) imports tools"),
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
        ("jmrec/types.py", "from jmrec.xla import warn_without_flags\n"),
        ("jmrec/__init__.py", "if TYPE_CHECKING:\n    from jmrec.api.verbs import run as run\n"),
        ("jmrec/commands/a.py", "from jmrec.api.start import start\n"),
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
