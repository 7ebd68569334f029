# %% [markdown]
# # 03 · What a Transfer tower learns
#
# The Transfer tower reads a session, one vector e per item, and says what may come next. ToyShop's
# sessions are drawn by a process we know, so we can lay what it learned beside the truth.
#
# **Needs** the shared run (about two and a half minutes of processor time, where no notebook has
# made it yet).
# **Takes** about 12 seconds of processor time beside that.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from shared_run import shared_run

from jmrec.data.toyshop import Oracle
from jmrec.evaluation.protocol import make_predictions

plt.rcParams["figure.constrained_layout.use"] = True
system = shared_run()
oracle, tower = Oracle(system.work.workdir / "data/toyshop"), system.teacher()
asked = make_predictions(system.data.dataset.splits["validation"])
# As if every item had been released: what is asked is which one follows, not when.
prefixes = replace(asked.prefixes, time=np.full(len(asked), np.inf))
print(len(asked), "predictions, none of which the tower learned from")

# %% [markdown]
# ## The process
# The next item is drawn from a softmax over all items. An item's logit rises, for each of nine
# attributes, by a **weight** where it has the **wanted** value. Which value is wanted depends on an
# earlier item, the **anchor**: colour looks at the last item and wants the next colour of a fixed
# cycle, material does so with the item before that, brand wants to stay as the first item is.

# %%
process = oracle.process
figure, axis = plt.subplots(figsize=(9, 3))
kinds = ["the last item", "the item before", "the first item"]
axis.bar(process.names, process.weight, color=[f"C{kind}" for kind in process.anchor])
axis.set(ylabel="weight of a match")
axis.legend([plt.Rectangle((0, 0), 1, 1, color=f"C{k}") for k in range(3)], kinds, title="anchor")

# %% [markdown]
# ## Three opinions on what comes next
# A probability for every item after every prefix: the process's own, the tower's (a softmax of its
# scores), and what counting gives: how often an item followed the last one in training. All are
# restricted to items that training knows and the session has not seen.

# %%
V = slice(0, len(system.data.dataset.items))


unseen = np.ones((len(asked), V.stop), bool)
unseen[asked.seen()] = False


def probabilities(scores, candidates):
    scores = np.where(candidates & unseen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


counts = np.full((V.stop, V.stop), 1e-3)  # never quite 0, so that every row has a sum
for session in system.data.dataset.splits["train"]:
    np.add.at(counts, (session[:-1], session[1:]), 1)
scores = {
    "truth": oracle.scores(prefixes, V),
    "tower": tower.scores(prefixes, V),
    "counts": np.log(counts)[prefixes.last()],
}
warm = {name: probabilities(array, system.data.train_items) for name, array in scores.items()}

# %% [markdown]
# ## The transition map
# From the colour of the last item to the colour of the next one: the probabilities of all items of
# a colour added up, averaged over the prefixes that end in a colour.


# %%
def transition_map(table, name):
    value = process.attributes[:, process.names.index(name)]
    to = table @ np.eye(value.max() + 1)[value]
    last = value[prefixes.last()]
    return np.stack([to[last == each].mean(axis=0) for each in range(value.max() + 1)])


def show(name):
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    maps = {label: transition_map(table, name) for label, table in warm.items()}
    top = max(each.max() for each in maps.values())
    for axis, (label, each) in zip(axes, maps.items()):
        drawn = axis.imshow(each, vmin=0, vmax=top)
        axis.set(title=label, xlabel=f"{name} of the next item")
    axes[0].set(ylabel=f"{name} of the last item")
    figure.colorbar(drawn, ax=axes, label="probability")


show("colour")

# %%
show("category")

# %% [markdown]
# A bright cell in every row, each column once: that is the cycle. Where the tower's map looks like
# the truth it has found the rule behind the clicks, from vectors that nobody labelled with a colour,
# or it has learned its items by heart: the last figure tells which. Paler cells in the right places
# mean that it is less sure.
#
# ## All nine attributes at once
# How much probability goes to items that have the wanted value? The truth's own bar is the goal;
# *even* is what an even spread over the items would give.


# %%
def wanted(a):
    rows = prefixes.expand()
    place = {0: -1, 1: -2, 2: 0}[int(process.anchor[a])]
    anchor = np.array([row[place] if len(row) > 1 or place != -2 else -1 for row in rows])
    return np.where(anchor < 0, -1, process.wanted[a, process.attributes[anchor, a]])


def mass_on_wanted(table):
    out = []
    for a in range(len(process.names)):
        value = wanted(a)
        match = process.attributes[:, a] == value[:, None]
        out.append((table * match).sum(axis=1)[value >= 0].mean())
    return np.array(out)


def compare(tables, axis):
    place = np.arange(len(process.names))
    for shift, (name, table) in zip((-0.27, 0, 0.27), tables.items()):
        axis.bar(place + shift, mass_on_wanted(table), width=0.27, label=name)
    candidates = next(iter(tables.values())) > 0
    even = mass_on_wanted(candidates / candidates.sum(axis=1, keepdims=True))
    axis.hlines(even, place - 0.4, place + 0.4, color="black", label="even")
    axis.set_xticks(place, process.names, rotation=45)


figure, axis = plt.subplots(figsize=(11, 3.5))
compare(warm, axis)
axis.set(ylabel="probability of the wanted value")
axis.legend()

# %% [markdown]
# ## Items that nobody has clicked
# A tower can also have learned by heart what follows each item, as the counts do. So now *cold* items
# are the only candidates. The counts know nothing of them (their bars can only be even); the tower
# knows them as vectors e, read from pictures and texts, and only what it truly reads can help it.

# %%
new = {name: probabilities(array, ~system.data.train_items) for name, array in scores.items()}
figure, axis = plt.subplots(figsize=(11, 3.5))
compare(new, axis)
axis.set(ylabel="probability of the wanted value", title="candidates: cold items only")
axis.legend()

# %% [markdown]
# ## Limits
# Sums over items forgive: a tower can put the right weight on a colour and still rank the wrong
# item first. The maps show averages over prefixes, and there are few. And a real shop has no truth
# to hold against; there, only predictions on later sessions can judge (notebook 06).
#
# ## Questions to try
# 1. `show("season")` and `show("material")`. Why is the truth itself so pale, and which map would you
#    have to draw for material instead?
# 2. Shuffle the prefixes (`jmrec.evaluation.rankers.neural.shuffle_prefixes`). Which attributes' bars
#    should fall, and which should stay?
# 3. Multiply the tower's scores by 2 before the softmax. It is surer now; is it better?
# 4. In which bars do counts come close to the tower, or pass it? Think of how many clicks each rests
#    on.
# 5. Which of the attributes that only a picture shows does the tower follow on cold items? Compare
#    with what notebook 02 found of them.
