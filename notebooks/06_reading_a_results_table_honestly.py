# %% [markdown]
# # 06 · Reading a results table honestly
#
# A run ends in `results.json` (and a report made of it). What may one conclude from it, and what not?
#
# **Needs** the shared run (about two and a half minutes of processor time, where no notebook has
# made it yet).
# **Takes** about 12 seconds of processor time beside that.

# %%
import matplotlib.pyplot as plt
import numpy as np
from shared_run import shared_run

from jmrec.evaluation.results import RESULTS, read_results

plt.rcParams["figure.constrained_layout.use"] = True
system = shared_run()
results = read_results(system.work.workdir / "evaluate" / RESULTS)
FIGURE, METRIC = results["primary"]["figure"], results["primary"]["metric"]
rows = {row["name"]: row for row in results["rows"]}
print(results["caption"])

# %% [markdown]
# **Read the caption first.** Which split, whether the whole catalogue is ranked, whether seen items
# are candidates, how things are averaged: change one of them and every figure below changes. Tables
# with different captions cannot be compared.
#
# ## Every row with its interval
# The line is a 95 % bootstrap interval: had other sessions come, the figure could well have been
# elsewhere on it. Rules that need no training stand beside the models, and above all the oracle,
# which knows how ToyShop was made.

# %%
COLOURS = {
    "rule": "grey",
    "content": "grey",
    "blend": "black",
    "oracle": "tab:green",
    "student": "tab:blue",
    "teacher": "tab:purple",
    "control": "tab:orange",
}


def forest(names, figure=FIGURE, metric=METRIC):
    drawn, axis = plt.subplots(figsize=(8, 0.28 * len(names) + 1))
    for place, name in enumerate(names):
        colour = COLOURS[rows[name]["kind"]]
        axis.plot(rows[name]["interval"][figure][metric], [place, place], color=colour)
        axis.plot(rows[name]["figures"][figure][metric], place, "o", color=colour)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel=f"{metric}, {figure}", xlim=(0, None))


forest(sorted(rows, key=lambda name: rows[name]["figures"][FIGURE][METRIC]))

# %% [markdown]
# Which rule is best? That is the row to beat: `results["best_rule"]`, the best of *this very table*,
# which is a harder mark than the rule that validation would have picked. A model that is not above
# it has not earned its training.
#
# ## Paired differences
# Overlapping intervals do not say that two rows are level. Both were asked the same sessions, and
# hard sessions are hard for both, so we look at the difference *session by session*. "Above" means
# that the interval of the mean difference excludes 0, **and** that every trained row has at least
# three seeds.

# %%
found = [c for c in results["comparisons"] if (c["figure"], c["metric"]) == (FIGURE, METRIC)]
figure, axis = plt.subplots(figsize=(8, 0.4 * len(found) + 1))
for place, each in enumerate(found):
    axis.plot(each["interval"], [place, place], color="tab:blue")
    axis.plot(each["difference"], place, "o", color="tab:blue")
axis.axvline(0, color="black", lw=1)
axis.set_yticks(range(len(found)), [f"{c['a']} − {c['b']}" for c in found], fontsize=8)
axis.set(xlabel=f"difference of {METRIC}")
for each in found:
    print(f"{each['a']} against {each['b']}: {each['verdict']}", each.get("reason", ""), sep="  ")

# %% [markdown]
# What the report says of all this in words is put together from the paired comparison and nothing
# else:

# %%
from jmrec.report.sentences import sentences

print(*sentences(results), sep="\n")

# %% [markdown]
# ## A wrong conclusion, made up
# Two models that are *exactly* equally good: both draw their session figures from the same pot. We
# test them forty times, on a hundred new sessions each. One of them always "wins" the table.

# %%
from jmrec.metrics.bootstrap import interval, paired

rng = np.random.default_rng(0)
sessions = np.arange(100)


def test_once(better_by=0.0):
    hard = rng.normal(0.3, 0.2, 100)  # how hard a session is, for whoever is asked
    a, b = (np.clip(hard + rng.normal(0, 0.1, 100), 0, 1) for _ in "ab")
    return np.clip(a + better_by, 0, 1), b


def draw(tests, title):
    figure, axis = plt.subplots(figsize=(10, 3))
    verdicts = [paired(a, b, sessions) for a, b in tests]
    for place, each in enumerate(verdicts):
        colour = "grey" if each.verdict == "not told apart" else "tab:red"
        axis.plot([place, place], [each.low, each.high], color=colour)
        axis.plot(place, each.difference, "o", color=colour)
    axis.axhline(0, color="black", lw=1)
    axis.set(xlabel="test", ylabel="a − b, with interval", title=title)
    wins = sum(each.difference > 0 for each in verdicts)
    told = sum(each.verdict != "not told apart" for each in verdicts)
    print(f"{title}: a has the higher mean {wins} times of 40; told apart {told} times")


draw([test_once() for _ in range(40)], "two equal models")

# %% [markdown]
# Whoever looks at the means alone announces a winner in every single test. The paired interval
# keeps silent nearly always. Nearly: at 95 % about one test in twenty is told apart by luck, which is
# why it matters how many comparisons one has made.
#
# And the other way round: a model that *is* a little better. The two intervals overlap widely, and
# yet the paired one mostly sees it.

# %%
tests = [test_once(better_by=0.03) for _ in range(40)]
draw(tests, "a is better by a little")
a, b = tests[0]
figure, axis = plt.subplots(figsize=(7, 1.8))
for place, (name, values) in enumerate({"b": b, "a": a}.items()):
    axis.plot(interval(values, sessions), [place, place], color="tab:blue")
    axis.plot(values.mean(), place, "o", color="tab:blue")
axis.set_yticks([0, 1], ["b", "a"])
axis.margins(y=0.5)
axis.set(xlabel="the first of those tests, each model by itself")

# %% [markdown]
# ## Seeds
# An interval over sessions says what other *sessions* would do. It does not know that the same
# training with another seed gives another model. So each student is trained several times; here is
# each seed's own figure, on validation.

# %%
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.protocol import make_predictions, rank

asked = make_predictions(system.data.dataset.splits["validation"])
name = results["served"]["row"]
V, seeds = len(system.data.dataset.items), system.students.seeds(name)
figure, axis = plt.subplots(figsize=(8, 1.8))
for place, seed in enumerate(seeds):
    ranks = rank(system.students.ranker(name, seed), asked, n_items=V, exclude_seen=True).ranks[0]
    means, clusters = units(per_prediction(ranks, METRIC), asked, FIGURE)
    axis.plot(interval(means, clusters), [place, place], color="tab:blue")
    axis.plot(means.mean(), place, "o", color="tab:blue")
axis.set_yticks(range(len(seeds)), [f"seed {s}" for s in seeds])
axis.margins(y=0.3)
axis.set(xlabel=f"{METRIC} on validation", xlim=(0, None))

# %% [markdown]
# ## Slices
# An average hides who pays for it. Targets by how often training saw them:

# %%
from jmrec.evaluation.figures import COUNT_SLICES

best = results["best_rule"]
(teacher,) = (each for each in rows if rows[each]["kind"] == "teacher")
shown = [best, name, teacher]
parts = list(COUNT_SLICES)
figure, axis = plt.subplots(figsize=(8, 3))
for shift, each in zip((-0.27, 0, 0.27), shown):
    slices = rows[each]["slices"]["train count"]
    axis.bar(
        np.arange(len(parts)) + shift, [slices[p][METRIC] or 0 for p in parts], 0.27, label=each
    )
counts = [rows[name]["slices"]["train count"][p]["n"] for p in parts]
axis.set_xticks(range(len(parts)), [f"{p} clicks\n(n = {n})" for p, n in zip(parts, counts)])
axis.set(ylabel=METRIC, xlabel="how often the target was clicked in training")
axis.legend()

# %% [markdown]
# Mind the *n*: a bar over a handful of predictions is an anecdote.
#
# ## The cold panel
# Any model finds more cold items if all of them are pushed up by a constant, and pays with warm
# ones. So three things stand side by side: can it tell cold items *from each other*, does it find
# them among all (with no offset, and with the one that validation chose), and how large a share of
# what it shows is cold?

# %%
from jmrec.evaluation.results import AMONG_COLD, HR20, OFFSET, SHARE_COLD, WARM_LOST

panel = {
    AMONG_COLD: "found among\ncold items",
    HR20: "found among\nall items",
    HR20 + OFFSET: "the same, with\nthe offset",
    WARM_LOST: f"warm {HR20} that\nthe offset costs",
    SHARE_COLD: "share of cold\nin the top 20",
}
shown = dict.fromkeys([best, "content-kNN (TF-IDF)", name, teacher, "newest first"])
figure, axis = plt.subplots(figsize=(10, 3.2))
for shift, each in zip(np.linspace(-0.32, 0.32, 5), shown):
    bars = [rows[each]["cold"][part] or 0 for part in panel]
    axis.bar(np.arange(5) + shift, bars, 0.16, label=each)
axis.set_xticks(range(5), panel.values())
axis.set(ylabel="share")
axis.legend(fontsize=8)

# %% [markdown]
# ## Controls
# Does it really look, read and use the order? Show the trained student other items' pictures or
# texts, or shuffle the prefixes: if its figure does not fall, it never used them.

# %%
controls = [each for each in rows if rows[each]["kind"] == "control"]
forest([*controls, name])

# %% [markdown]
# ## How often was test read?
# Every reading of the test split is written down. Whoever reads it, changes a setting and reads it
# again has begun to choose on it, and the intervals know nothing of that.

# %%
print((system.work.workdir / "test_reads.jsonl").read_text())
print("test readings noted in results.json:", results["test_reads"])

# %% [markdown]
# ## Limits
# This run is small on purpose: its figures are no statement about TPAD. Bootstrap intervals are a
# little too narrow on few sessions, they do not know that next month differs from this one, and they
# cannot mend a question that was chosen after the answers were seen.
#
# ## Questions to try
# 1. Write down, before looking, which of two rows you expect ahead. Then look at their paired
#    difference. (`jmrec.evaluation.summary.compare` compares any two.)
# 2. Compare 20 made-up models that are all equal with a 21st. How often is at least one "above"?
# 3. `forest(list(rows), "prediction")` and `"last"`: do the three ways of averaging agree on the order?
# 4. Which row would you serve if half of your visitors came for new items?
# 5. Make two wrong claims about this table that look right on the first figure. What refutes each?
