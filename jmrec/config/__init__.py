"""Experiment files and their arguments: one place where a configuration comes from.

An experiment is a Python file with ``get_config(arg=None)`` that returns a ``ConfigDict``. It
imports nothing of jmrec but this package::

    from jmrec.config import ConfigDict, choose, parse_arg, placeholder


    def get_config(arg=None):
        arg = parse_arg(arg, data="toyshop", size="small")
        config = ConfigDict()
        config.width = choose("size", arg.size, {"tiny": 32, "small": 128})
        config.data = ConfigDict({"name": arg.data, "dir": placeholder(str)})
        return config

``load_config("x.py:size=tiny", ["--config.data.dir=shop"])`` reads it. A file that can be swept has
``get_hyper`` too (`jmrec.config.hyper`). No jax in here, so that a mistyped argument is answered at
once.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jmrec.config.arguments import choose, nearest, parse_arg
from jmrec.config.compare import config_hash, difference, flatten
from jmrec.config.hyper import fixed, product, subsample, sweep, zipit
from jmrec.config.load import load_config, load_hyper, override_words, resolve_path
from jmrec.config.rows import TRAINED, only_rows, own_of_rows
from jmrec.config.typed import config_from
from jmrec.config.yaml_file import OVERRIDE, overridden, read_overrides

__all__ = [
    "OVERRIDE",
    "TRAINED",
    "ConfigDict",
    "choose",
    "config_from",
    "config_hash",
    "difference",
    "fixed",
    "flatten",
    "load_config",
    "load_hyper",
    "nearest",
    "only_rows",
    "overridden",
    "override_words",
    "own_of_rows",
    "parse_arg",
    "placeholder",
    "product",
    "read_overrides",
    "resolve_path",
    "subsample",
    "sweep",
    "zipit",
]
