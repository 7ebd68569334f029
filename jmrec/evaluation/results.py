"""The schema of results.json and cost.json: what an evaluation found, and what it cost.

Every system writes these two files, and the report, sweeps, ``jmrec inspect`` and notebooks read
them through this module. results.json holds no clock time, memory, path or command: one command
gives the same bytes each time. Those are in cost.json beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, Required, TypedDict, cast

from jmrec.errors import UserError
from jmrec.evaluation.periods import OverTime
from jmrec.evaluation.sections import Check, Estimate, Helped
from jmrec.files import read_json, write_json

FORMAT = 2
"""The version of both files; a results.json that names none is of version 1."""
RESULTS, COST = "results.json", "cost.json"

# ---- names ---------------------------------------------------------------------------------------

SESSION, PREDICTION, LAST = "session", "prediction", "last"
FIGURES = {
    SESSION: "mean over sessions of the mean over positions 1-20",
    PREDICTION: "mean over predictions at positions 1-50",
    LAST: "last click of each session",
}
"""The ways in which a metric is averaged over predictions."""
METRICS = ("HR", "MRR", "NDCG")
CUTOFFS = (1, 5, 10, 20)
DEPTH = 20
"""The cut-off of the primary figure, of slices, of the cold panel and of bias."""
HR20, MRR20 = f"HR@{DEPTH}", f"MRR@{DEPTH}"
"""The two metrics that have intervals: is the target in the list, and how far up."""
MEASURES = ((SESSION, MRR20), (SESSION, HR20))
"""(figure, metric) of each paired comparison."""
AMONG_COLD = f"{HR20} among cold"
WARM_LOST = f"warm {HR20} lost"
SHARE_COLD = f"share of cold in top {DEPTH}"
OFFSET = " with offset"
"""At the end of a name of the cold panel: with the score offset that validation chose."""
COVERAGE, POPULARITY = f"coverage@{DEPTH}", f"mean training count@{DEPTH}"
ESTIMATE, NATS = "estimate", "nats"
"""The figure and the metric of a study of estimators."""
PAIR = "pair"
"""The figure of ranking (user, item) pairs: over rows, of which each is a pair with a label."""
PR_AUC, ROC_AUC, LOG_LOSS, ECE = "PR-AUC", "ROC-AUC", "log loss", "ECE"
RECALLS = {"FPR@recall .5": 0.5, "FPR@recall .8": 0.8}
"""False-positive rates where so many of the positives are found."""
FPR = "FPR"
RATES = ("precision", "recall", "F1", FPR)
CHOSEN = " at threshold"
"""At the end of a rate's name: at the threshold that validation chose, else at 0.5."""
PAIR_METRICS = (PR_AUC, ROC_AUC, LOG_LOSS, ECE, *RECALLS, *RATES, *(n + CHOSEN for n in RATES))
"""All metrics of a pair, in the order of results.json."""
LOWER = (LOG_LOSS, ECE, FPR)
"""Beginnings of the names of metrics that are better the lower they are."""


class Primary(TypedDict):
    """The main number of a system: a figure (a way of averaging) and a metric.

    The higher the better, so that a sweep takes the highest; only "nats" have a truth to meet.
    """

    figure: str
    metric: str


RANKING: Primary = {"figure": SESSION, "metric": MRR20}
ESTIMATION: Primary = {"figure": ESTIMATE, "metric": NATS}
PAIRS: Primary = {"figure": PAIR, "metric": PR_AUC}

BOUND, RULE, MODEL, TEACHER, CONTROL = "bound", "rule", "model", "teacher", "control"
RIVAL = "rival"
"""What a row is for: nothing is above a bound, a rule needs no training, a model is to beat the
rules, a teacher is a model that others learned from, a control is a model with one thing broken, a
rival is a plain learner that was given what the models have."""
LEARNED = (MODEL, TEACHER, CONTROL)
"""Roles of rows that were trained, so that their seeds count."""


class Kind(TypedDict):
    """A group of rows in the table: its name in the rows, its heading, and its role."""

    name: str
    title: str
    role: str


def _kinds(*kinds: tuple[str, str, str]) -> dict[str, Kind]:
    return {name: {"name": name, "title": title, "role": role} for name, title, role in kinds}


PLAIN = "rule"
"""The kind of rules that read neither texts nor pictures and blend nothing."""
MIX, OWN = "mix", "own"
"""The kinds of what blends rules and a student, and of a ranker of somebody's own."""
KINDS = _kinds(
    ("oracle", "Oracle (knows how the data was made)", BOUND),
    (PLAIN, "Rules without training", RULE),
    ("content", "Content rules", RULE),
    ("blend", "Blend of rules", RULE),
    (RIVAL, "Rivals on the same features", RIVAL),
    ("encoder", "Session encoders", MODEL),
    ("student", "Students", MODEL),
    (MIX, "Blends of rules and a student", MODEL),
    (OWN, "Your own", MODEL),
    ("ranker", "Rankers of pairs", MODEL),
    ("teacher", "Teacher", TEACHER),
    ("control", "Controls", CONTROL),
    ("lower", "lower bound", ESTIMATE),
    ("upper", "upper bound", ESTIMATE),
    ("estimate", "neither", ESTIMATE),
)
"""Every kind that a row may be of, in the table's order; results.json holds those of its rows."""

FROZEN, WEEKLY, LIVE = "frozen", "weekly", "live"
"""What a row counts: the training sessions, also what was before the week of what is predicted, or
all that was before it."""

# ---- results.json --------------------------------------------------------------------------------


DatasetHead = TypedDict(
    "DatasetHead",
    {
        "name": Required[str],
        "items": int,
        "sessions": dict[str, int],
        "exclude_seen": bool,
        "split": str,
        "predictions": dict[str, int],
        "training count": dict[str, float | None],
        "label": str,
        "label means": str,
        "users": int,
        "rows": dict[str, int],
        "positives": dict[str, int],
    },
    total=False,
)
"""What was evaluated on; a study of made-up pairs has the name alone. Of pairs with a label: how
many rows each split has, and how many of them are positive."""


class ResultRow(TypedDict):
    """One row of the table.

    ``figures`` is figure -> metric -> a fraction (None where there is nothing to average),
    ``interval`` the same with [low, high]; ``seeds`` is how many were averaged; ``counts`` is
    WEEKLY or LIVE where a row counts what came after training, and not there where it is FROZEN.
    """

    name: str
    kind: str
    seeds: int
    counts: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    figures: dict[str, dict[str, float | None]]
    interval: dict[str, dict[str, list[float]]]
    slices: NotRequired[dict[str, dict[str, dict[str, Any]]]]
    cold: NotRequired[dict[str, Any]]
    bias: NotRequired[dict[str, float | None]]
    estimates: NotRequired[list[Estimate]]


class Comparison(TypedDict):
    """The paired difference of two rows; "reason" says why an interval claims nothing."""

    a: str
    b: str
    figure: str
    metric: str
    difference: float | None
    interval: list[float]
    verdict: str
    reason: NotRequired[str]


BEST = "best"
"""The word for the row that is best on validation."""


class Choice(Primary):
    """How a served row was chosen: what was ``wanted`` (its name, or "best"), and by which figure.

    ``validation`` is that figure of every row that can be served, None where there is none.
    """

    wanted: str
    validation: dict[str, float | None]


class ServedRow(TypedDict):
    """Which row is served, and the rows that the summary compares it with, such as its teacher.

    ``student`` is the one that controls and teacher are of, where a rule is served.
    """

    row: str
    beside: list[str]
    student: NotRequired[str]
    choice: NotRequired[Choice]


class StageFacts(TypedDict):
    """The group of a stage's seeds ("" for none), and its seed."""

    group: str
    seed: int | None


class Results(TypedDict):
    """The contents of results.json. Sections that are not required may be missing.

    ``best_rule`` is the best of the rules that are frozen, as models are.
    """

    format: int
    system: str
    primary: Primary
    caption: str
    dataset: DatasetHead
    kinds: list[Kind]
    rows: list[ResultRow]
    comparisons: list[Comparison]
    best_rule: str | None
    best_live_rule: NotRequired[str]
    served: ServedRow | None
    test_reads: int
    stages: dict[str, StageFacts]
    curves: dict[str, dict[str, list[Any]]]
    value: NotRequired[dict[str, Any]]
    over_time: NotRequired[OverTime]
    policy: NotRequired[dict[str, Any]]
    examples: NotRequired[dict[str, Any]]
    helped: NotRequired[Helped]
    study: NotRequired[dict[str, Any]]
    pairs: NotRequired[dict[str, Any]]
    checks: NotRequired[list[Check]]


# ---- cost.json -----------------------------------------------------------------------------------


class StageCost(TypedDict, total=False):
    """What a stage cost, be it the run that it was taken from; bytes are of the first process.

    ``ranked`` is there of an evaluation by several processes: the predictions that each ranked, the
    rows of the table and their settings together.
    """

    seconds: float
    peak_memory: int | None
    updates: int | None
    flops: float | None
    made_by: str
    ranked: list[int]


class RowCost(TypedDict, total=False):
    """What a row of the table cost in the evaluation; bytes are those of the whole process.

    ``fit`` is there of a rule: the seconds in which it was counted and its settings were chosen on
    validation. ``rank`` is those in which every target was ranked, seeds together.
    """

    fit: float
    rank: float
    peak_memory: int | None


class Cost(TypedDict):
    """The contents of cost.json: stage -> cost, row -> cost, commands, what `export` measured.

    ``evaluation`` is what the evaluation itself cost; ``made`` says when, of which commit, with
    which versions and on which machine, each in words.
    """

    format: int
    made: NotRequired[dict[str, str]]
    stages: dict[str, StageCost]
    evaluation: NotRequired[StageCost]
    rows: NotRequired[dict[str, RowCost]]
    commands: dict[str, str]
    serving: NotRequired[dict[str, Any]]


def make_cost(
    stages: Mapping[str, StageCost] | None = None, commands: Mapping[str, str] | None = None
) -> Cost:
    """Return a cost.json.

    Example:
      >>> make_cost(commands={"run": "jmrec run"})
      {'format': 2, 'stages': {}, 'commands': {'run': 'jmrec run'}}
    """
    return {"format": FORMAT, "stages": dict(stages or {}), "commands": dict(commands or {})}


# ---- reading and writing -------------------------------------------------------------------------


def write_results(folder: Path, results: Results, cost: Cost) -> None:
    """Write results.json and cost.json into a folder.

    Raises:
      ValueError: The results are not as the schema says.
    """
    if fault := _fault(results):
        raise ValueError(f"results that nobody can read: {fault}")
    write_json(folder / RESULTS, results)
    write_cost(folder, cost)


def write_cost(folder: Path, cost: Cost) -> None:
    """Write cost.json into a folder."""
    write_json(folder / COST, cost)


def read_results(path: Path) -> Results:
    """Read a results.json.

    Raises:
      UserError: It is missing, damaged, or of an older or newer jmrec.
    """
    found = _read(path)
    fault = _fault(found)
    if fault:
        raise UserError(f"{path} is damaged ({fault}); run jmrec evaluate again.")
    return cast(Results, found)


def read_cost(folder: Path) -> Cost:
    """Read the cost.json of a folder; an empty one where there is none.

    Raises:
      UserError: It is damaged, or of a newer jmrec.
    """
    path = folder / COST
    if not path.is_file():
        return make_cost()
    found = _read(path)
    if not all(isinstance(found.get(name), dict) for name in ("stages", "commands")):
        raise UserError(f"{path} is damaged (it lacks its fields); delete it.")
    return cast(Cost, found)


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds no fields); run jmrec evaluate again.")
    version = found.get("format", 1)
    if version == FORMAT:
        return found
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path}: format {version} is of a newer jmrec, this one reads format {FORMAT}; use "
            "the version that wrote it."
        )
    raise UserError(
        f"{path} was written by an older jmrec (format {version}, this one reads format {FORMAT}); "
        "run jmrec evaluate again, or read it with the version that wrote it."
    )


def _fault(found: Mapping[str, Any]) -> str:
    """Return the first difference of a results.json from `Results`, "" for none."""
    lacks = sorted(Results.__required_keys__ - found.keys())
    if lacks:
        return f"it has no {lacks[0]!r}"
    wanted: dict[str, type] = {"dataset": dict, "stages": dict, "curves": dict, "primary": dict}
    wanted |= {"kinds": list, "rows": list, "comparisons": list, "system": str, "caption": str}
    wrong = [name for name, kind in wanted.items() if not isinstance(found[name], kind)]
    if wrong:
        return f"its {wrong[0]!r} is no {wanted[wrong[0]].__name__}"
    sections: list[tuple[str, Any, frozenset[str]]] = [
        ("'primary'", found["primary"], Primary.__required_keys__),
        *((f"kind {n}", each, Kind.__required_keys__) for n, each in enumerate(found["kinds"])),
        *((f"row {n}", each, ResultRow.__required_keys__) for n, each in enumerate(found["rows"])),
        *(
            (f"comparison {n}", each, Comparison.__required_keys__)
            for n, each in enumerate(found["comparisons"])
        ),
    ]
    for name, each, keys in sections:
        if not isinstance(each, dict) or not keys <= each.keys():
            return f"{name} lacks its fields"
    return _fault_of_rows(found)


def _fault_of_rows(found: Mapping[str, Any]) -> str:
    """Return the first thing that contradicts itself, "" for none."""
    kinds = {each["name"] for each in found["kinds"]}
    names = [row["name"] for row in found["rows"]]
    primary = found["primary"]
    if len(set(names)) < len(names):
        return "two rows have one name"
    for row in found["rows"]:
        if row["kind"] not in kinds:
            return f"row {row['name']!r} is of the unknown kind {row['kind']!r}"
        if primary["metric"] not in row["figures"].get(primary["figure"], {}):
            return f"row {row['name']!r} has no {primary['metric']} by {primary['figure']}"
    named = [(each[side], "a comparison") for each in found["comparisons"] for side in "ab"]
    bests = [name for name in ("best_rule", "best_live_rule") if found.get(name)]
    named += [(found[name], f"'{name}'") for name in bests]
    served = found["served"]
    if served:
        own = [served["row"], *served["beside"], served.get("student", served["row"])]
        named += [(each, "'served'") for each in own]
    for name, where in named:
        if name not in names:
            return f"{where} names {name!r}, which is no row"
    return ""


# ---- asking --------------------------------------------------------------------------------------


def kinds_of(names: Mapping[str, Any] | list[str]) -> list[Kind]:
    """Return the kinds of these names, in the table's order.

    Raises:
      ValueError: A name is no kind.

    Example:
      >>> [kind["title"] for kind in kinds_of(["blend", "rule"])]
      ['Rules without training', 'Blend of rules']
    """
    unknown = set(names) - KINDS.keys()
    if unknown:
        raise ValueError(f"no kind of rows is named {', '.join(sorted(unknown))}")
    return [kind for name, kind in KINDS.items() if name in names]


def mixed_name(student: str) -> str:
    """Return the name of the row that blends all rules and a student.

    Example:
      >>> mixed_name("student")
      'blend of rules and student'
    """
    return f"blend of rules and {student}"


def role_of(kind: str) -> str:
    """Return what rows of a kind are for, "" where the kind is unknown.

    Example:
      >>> role_of("blend"), role_of("student")
      ('rule', 'model')
    """
    return KINDS[kind]["role"] if kind in KINDS else ""


def primary_of(results: Results, name: str) -> float | None:
    """Return the primary figure of a row by its name, None where it has none."""
    figure, metric = results["primary"]["figure"], results["primary"]["metric"]
    for row in results["rows"]:
        if row["name"] == name:
            return row["figures"].get(figure, {}).get(metric)
    return None


def lower_is_better(metric: str) -> bool:
    """Return whether a metric is better the lower it is.

    Example:
      >>> lower_is_better("FPR@recall .5"), lower_is_better("PR-AUC")
      (True, False)
    """
    return metric.startswith(LOWER)


def spoken(primary: Primary) -> str:
    """Return a primary figure in words.

    Example:
      >>> spoken(RANKING), spoken(PAIRS)
      ('MRR@20, session average', 'PR-AUC')
    """
    if primary["figure"] == PAIR:
        return primary["metric"]
    return f"{primary['metric']}, {primary['figure']} average"
