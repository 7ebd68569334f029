"""Session encoders over ids, over given item features, or over both: no tower is trained.

Hypothesis: how far does a session encoder come without reading items, and what do features add that
another run, or another program, has made? Each encoder is trained by the same loop, chosen on
validation and held against the same rules that need no training.

Arguments:
  data=toyshop|folder   the embedded shop, or your catalogue folder (--config.data.dir=...)
  size=tiny|small|base  tests (a minute on a laptop), a CPU, a GPU
  encoder=student       a name of jmrec.models.sessions, or several joined by +: a row for each; of
                        ToyShop the first is served, of your own folder the row that is best on
                        validation, a rule where a rule is (--config.evaluate.serve=NAME: another)
  items=ids|features|both   what is known of an item: a row of a table of ids, its features, or both
  teacher=none|rules    whether the students also follow the blend of rules, which labels sessions
                        that it has not seen

Features come from --config.features.from=RUN_OR_FOLDER: the workdir of a finished run of
experiments/tpad.py on the same data (--config.features.name=k+t, the default, or e), or a folder
with features.npy (numbers [N, D]) and ids.json (the N item ids).

Sweep (get_hyper): the learning rate by the weight decay, six trials.

Seen (test, session MRR@20 in percent, 2 CPU cores):
  size=tiny, ToyShop, items=ids, three seeds, commit 41151ba: oracle 48.6, blend of rules 20.0,
  sequential rules 19.4, student 18.0 (18.2 before sessions shared rows in training, a18c65c).
  size=small, data=folder, items=ids, three seeds, commit b637c9a: cellphones (its own split): blend
  of rules 17.6, sequential rules 17.3, student 16.1 (8.8 with the 450 updates of before); movies:
  blend of rules 6.0, student 3.1 (1.4); tweetings: newest first 7.3, blend of rules 6.1, student
  6.0.

Commands:
  jmrec run --config experiments/session.py:size=tiny --workdir runs/ids
  jmrec run --config experiments/session.py:data=folder,size=small,items=both \
    --config.data.dir=SHOP --config.features.from=runs/shop --workdir runs/both
"""

from typing import Any

from jmrec.config import ConfigDict, choose, parse_arg, placeholder, product, sweep

from .common import (
    SIZES,
    evaluation,
    id_only,
    run_settings,
    session_context,
    session_data,
    session_student,
)


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration of the encoders."""
    args = parse_arg(
        arg, data="toyshop", size="small", encoder="student", items="ids", teacher="none"
    )
    choose("size", args.size, SIZES)
    # A ConfigDict has a method of that name.
    items = choose("items", args["items"], {each: each for each in ("ids", "features", "both")})
    taught = choose("teacher", args.teacher, {"none": False, "rules": True})

    config = run_settings("session", args.size)
    config.data = session_data(args.data, args.size)
    config.context = session_context()
    # Where item features come from, which of a run's they are, and their width, which only
    # jmrec plan wants to be told.
    config.features = ConfigDict({"from": placeholder(str), "name": "k+t", "width": 0})
    config.student = session_student(args.data, args.size)
    variant = {
        "view": "both", "features": "given", "ids": items == "both",
        "logit": 1.0 if taught else 0.0, "distill": "topk_kl",
    }  # fmt: skip
    names = args.encoder.split("+")
    config.students = ConfigDict({name: {**variant, "encoder": name} for name in names})
    if items == "ids":
        for name in names:
            config.students[name] = id_only(args.data, args.size, config.students[name])
    config.teach = ConfigDict({"folds": 5})
    config.evaluate = evaluation(args.data, names[0])
    return config


def get_hyper(arg: str | None = None) -> list[dict[str, Any]]:
    """Return the trials of ``jmrec sweep``."""
    return product(
        sweep("student.train.learning_rate", (1e-3, 3e-3, 1e-2)),
        sweep("student.train.weight_decay", (0.01, 1.0)),
    )
