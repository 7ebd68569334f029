"""Session encoders over ids, over given item features, or over both: no tower is trained.

Hypothesis: how far does a session encoder come without reading items, and what do features add that
another run, or another program, has made? Each encoder is trained by the same loop, chosen on
validation and held against the same rules that need no training.

Arguments:
  data=toyshop|folder   the embedded shop, or your catalogue folder (--config.data.dir=...)
  size=tiny|small|base  tests (a minute on a laptop), a CPU, a GPU
  encoder=NAME          of jmrec.models.sessions, or several joined by +: a row for each. Without it
                        student on ToyShop, and of your own folder sasrec, the better of the two on
                        validation (Seen). Of ToyShop the first is served, of your own folder the
                        row that is best on validation, a rule where a rule is
                        (--config.evaluate.serve=NAME: another)
  items=ids|features|both   what is known of an item: a row of a table of ids, its features or both;
                        several joined by + are rows of one run (gru4rec, gru4rec-both)
  protocol=jmrec|paper  jmrec: 80/10/10 of the sessions by time, every item is predicted; paper: how
                        papers on session encoders train and judge, by the last item of a session
                        (as_in_papers of experiments/common.py states all that differs)
  teacher=none|rules|both   whether the students also follow the blend of rules, which labels
                        sessions that it has not seen; both: a row that does, NAME-taught, beside
                        each one that does not

Encoders have the published settings that stand in PUBLISHED of experiments/common.py;
--config.students.NAME.hparams.dropout (or any other that stands there) changes one.

Features come from --config.features.from=RUN_OR_FOLDER: the workdir of a finished run of
experiments/tpad.py on the same data (--config.features.name=k+t, the default, or e), or a folder
with features.npy (numbers [N, D]) and ids.json (the N item ids).

Sweep (get_hyper): the learning rate by the weight decay, six trials.

Seen (test, session MRR@20 in percent, 2 CPU cores):
  size=tiny, ToyShop, items=ids, three seeds, commit 41151ba: oracle 48.6, blend of rules 20.0,
  sequential rules 19.4, student 18.0 (18.2 before sessions shared rows in training, a18c65c).
  The same on validation, data=folder, size=small, core beside sasrec, means of three seeds, commit
  2849a9c: tweetings 7.5 and 9.9, cellphones (its own split) 10.4 and 16.5 (one seed of sasrec), so
  that sasrec stays the default; on movies core is the better one (docs/results/leaderboards.md).
  The best validation MRR@20 of a session, data=folder, items=ids, seed 0, sasrec and student:
  tweetings 9.9 and 8.9 (commit e5dc2cc); while settings were chosen (before b637c9a) cellphones
  17.5 and 16.9, movies 4.2 to 4.6 and 3.8.
  (All of these with at most 4,000 updates, of today's 20,000, and of the last update's parameters;
  docs/results/ids.md says what more updates and their average bring.)
  size=small, data=folder, items=ids, encoder=student, three seeds, commit b637c9a: cellphones (its
  own split): blend of rules 17.6, sequential rules 17.3, student 16.1 (8.8 with the 450 updates of
  before); movies: blend of rules 6.0, student 3.1 (1.4); tweetings: newest first 7.3, blend of
  rules 6.1, student 6.0. The blend of rules and the same students, commit 8e07857: cellphones 18.0,
  movies 6.0.
  teacher=both, encoder=sasrec, size=small, three seeds, commit 1d7d54e, MRR@20 / HR@20: cellphones
    15.8 / 29.4, taught 17.0 / 29.4 (+1.22 [0.99, 1.46]); tweetings 6.1 / 21.8, taught 5.7 / 22.2
    (-0.42 [-0.77, -0.02]).
  teacher=both, encoder=sasrec, size=small, movies, three seeds, commit e62daba: sasrec 3.7, taught
  4.5 (paired +0.83, 0.38 to 1.28), blend of rules 6.0, with the taught one 6.0.
  protocol=paper, encoder=sasrec, cellphones, three seeds, commit fe16c50 with
  --config.student.train.average=400 (since then the default): SASRec 17.2 (P@20 30.7), blend of
  rules 18.2 (27.5), both 18.9 (31.1), above the blend by 0.8 [0.6, 0.9] and 3.6 [3.1, 4.0]. The
  last update's parameters, one seed, commit 9dfcbeb: 16.8, 18.2, 18.7.
  The average of the last 200 updates (commit fe16c50) for the last update's parameters, sasrec,
  three seeds: movies 3.4 -> 3.9, tweetings 5.7 -> 6.1; with the rules 6.0 -> 6.0 and 6.4 -> 6.5
  (runs of the last update at other commits: 3.7 and 6.1, see docs/results/ids.md).

Commands:
  jmrec run --config experiments/session.py:size=tiny --workdir runs/ids
  jmrec run --config experiments/session.py:data=folder,size=small,items=both \
    --config.data.dir=SHOP --config.features.from=runs/shop --workdir runs/both
  jmrec run --config experiments/session.py:data=folder,size=small,protocol=paper,encoder=narm \
    --config.data.dir=BENCHMARK --workdir runs/narm
  jmrec data amazon BEAUTY --category All_Beauty --yes     # downloads; see docs/how-to/amazon.md
  jmrec run --config experiments/session.py:data=folder,size=small,protocol=paper,encoder=sasrec \
    --config.data.dir=BEAUTY --config.data.toml=BEAUTY/5core_last_out.toml --workdir runs/beauty
"""

from typing import Any

from jmrec.config import ConfigDict, choose, parse_arg, placeholder, product

from .common import (
    SIZES,
    as_in_papers,
    evaluation,
    id_only,
    is_toyshop,
    published,
    run_settings,
    session_context,
    session_data,
    session_student,
    sweep_students,
)


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration of the encoders."""
    args = parse_arg(
        arg, data="toyshop", size="small", encoder="", items="ids", protocol="jmrec",
        teacher="none",
    )  # fmt: skip
    encoders = args.encoder or ("student" if is_toyshop(args.data) else "sasrec")
    choose("size", args.size, SIZES)
    papers = choose("protocol", args.protocol, {"jmrec": False, "paper": True})
    lessons = choose(
        "teacher",
        args.teacher,
        {"none": {"": 0.0}, "rules": {"": 1.0}, "both": {"": 0.0, "-taught": 1.0}},
    )

    config = run_settings("session", args.size)
    config.data = session_data(args.data, args.size)
    config.context = session_context()
    config.on_device = "auto"
    # Where item features come from, which of a run's they are, and their width, which only
    # jmrec plan wants to be told.
    config.features = ConfigDict({"from": placeholder(str), "name": "k+t", "width": 0})
    config.student = session_student(args.data, args.size)
    config.students = ConfigDict()
    every = args["items"].split("+")  # a ConfigDict has a method of that name
    for items in every:
        choose("items", items, ("ids", "features", "both"))
        for encoder in encoders.split("+"):
            name = encoder if items == every[0] else f"{encoder}-{items}"
            for ending, logit in lessons.items():
                student = ConfigDict({
                    "view": "both", "features": "given", "ids": items == "both",
                    "logit": logit, "distill": "topk_kl", "encoder": encoder,
                })  # fmt: skip
                if items == "ids":
                    student = id_only(args.data, args.size, student)
                config.students[name + ending] = published(encoder, student)
    config.teach = ConfigDict({"folds": 5})
    config.evaluate = evaluation(args.data, encoders.split("+")[0])
    if papers:
        as_in_papers(config, args.size)
    return config


def get_hyper(arg: str | None = None) -> list[dict[str, Any]]:
    """Return the trials of ``jmrec sweep``."""
    config = get_config(arg)
    return product(
        sweep_students(config, "train.learning_rate", (1e-3, 3e-3, 1e-2)),
        sweep_students(config, "train.weight_decay", (0.01, 1.0)),
    )
