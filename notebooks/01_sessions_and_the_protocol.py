# %% [markdown]
# # 01 · Sessions and the protocol
#
# What a session is, what exactly is predicted, and how a prediction is judged, on ToyShop: a small
# shop that jmrec makes by a process we know.
#
# **Needs** jmrec and nothing else: no trained model, no download.
# **Takes** about 7 seconds of processor time.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from jmrec.xla import set_flags

set_flags()  # before jax starts

from jmrec.data.toyshop import ToyShopConfig, write_toyshop

plt.rcParams["figure.constrained_layout.use"] = True
home = Path(tempfile.mkdtemp())
write_toyshop(home / "shop", ToyShopConfig(seed=0, items=200, sessions=600))
for name in ("items.csv", "interactions.csv"):
    print(name, *(home / "shop" / name).read_text().splitlines()[:4], sep="\n  ", end="\n\n")

# %% [markdown]
# That is a **catalogue folder**, what anybody brings who uses jmrec: items with texts and pictures,
# and who clicked what and when. `prepare` checks it, groups clicks into sessions and splits them.

# %%
from jmrec.data.prepared import prepare

dataset = prepare(home / "shop", None, home / "prepared")
print(len(dataset.items), "items;", {name: len(part) for name, part in dataset.splits.items()})

# %% [markdown]
# ## A session
# What one anonymous visitor clicked, in order. No name, no past: that is all there is to go by.

# %%
from jmrec.data.pictures import decode_pictures

pixels, _ = decode_pictures(dataset.items, 64)
train = list(dataset.splits["train"])
session = next(s for s in train if len(s) == 6)
figure, axes = plt.subplots(1, len(session), figsize=(11, 2.4))
for place, (row, axis) in enumerate(zip(session, axes), 1):
    axis.imshow(pixels[row])
    axis.set_title(f"click {place}\n{dataset.items.titles[row]}", fontsize=8)
    axis.axis("off")

# %% [markdown]
# ## A prediction
# A session of *n* clicks gives *n - 1* predictions: after each click but the last, which item comes
# next? What is known is the **prefix**, what is asked for is the **target**.

# %%
from jmrec.evaluation.protocol import make_predictions

validation = make_predictions(dataset.splits["validation"])
for i in np.flatnonzero(validation.session == validation.session[0]):
    prefix = validation.prefixes.take([i]).expand()[0]
    print(f"after {prefix.tolist()}: which item? (it was {validation.target[i]})")

# %% [markdown]
# ## Split by time
# Models learn from the past and are judged on the future, because that is how they will be used. A
# random split would let a model learn from sessions of next week. It would also hide the second
# thing that the figure shows: items that appear only when training is over.

# %%
start = dataset.splits["train"].times.min()
place = np.argsort(np.argsort(-dataset.train_count))  # most clicked in training first
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3))
for name, part in dataset.splits.items():
    begins = (part.times[part.offsets[:-1]] - start) / 86400
    left.hist(begins, bins=np.arange(0, 101, 2), label=name)
    right.scatter((part.times - start) / 86400, place[part.items], s=2, label=name)
left.set(xlabel="day", ylabel="sessions that begin", title="three splits, one after the other")
right.set(xlabel="day", ylabel="item, by clicks in training", title="every click")
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)

# %% [markdown]
# ## Cold items
# An item is **cold** where no training session holds it. Rules that count clicks know nothing of
# it; a model that has read its text and looked at its picture may. In jmrec even the tokenizer sees
# no cold item.

# %%
cold = dataset.train_count == 0
figure, axis = plt.subplots(figsize=(6, 3))
order = np.argsort(-dataset.train_count)
axis.bar(np.arange(len(order)), dataset.train_count[order], width=1)
axis.axvspan((~cold).sum(), len(order), color="tab:red", alpha=0.2, label="cold")
axis.set(xlabel="items, most clicked first", ylabel="clicks in training")
axis.legend()
print(f"{cold.sum()} of {len(cold)} items are cold,")
print(f"and so are {cold[validation.target].mean():.0%} of what validation asks for")

# %% [markdown]
# ## The rank of the target, by hand
# A model gives every item a score. The **rank** is one plus the number of *other* candidates that
# do not score below the target. So a tie counts against the model: otherwise one that gives every
# item the same score would always be right. Where the data says so, items of the prefix are no
# candidates.

# %%
scores = np.array([0.9, 0.4, 0.7, 0.4, 0.1, 0.4])
prefix, target = [0], 1
others = [i for i in range(len(scores)) if i != target and i not in prefix]
rank_by_hand = 1 + sum(scores[i] >= scores[target] for i in others)
print("ahead or level:", [i for i in others if scores[i] >= scores[target]], "rank:", rank_by_hand)

# %% [markdown]
# jmrec's own `rank` must say the same. It asks a **Ranker** (here one with fixed scores) and never
# holds all scores of a large catalogue at once.

# %%
from jmrec.data.schema import Sessions
from jmrec.evaluation.protocol import rank
from jmrec.evaluation.rankers.popularity import StaticRule

one = Sessions(
    ["visitor"],
    np.array([-1]),
    np.array([0, 2]),
    np.array([*prefix, target]),
    np.arange(2.0),
    np.zeros(2),
    np.zeros(2),
)
found = rank(StaticRule("by hand", scores), make_predictions(one), n_items=6, exclude_seen=True)
print("rank by jmrec:", found.ranks[0])
assert found.ranks[0] == [rank_by_hand]

# %% [markdown]
# ## From ranks to figures
# **HR@20** asks whether the target is among the first 20, **MRR@20** how far up it is.

# %%
from jmrec.metrics.ranks import hit_rate, reciprocal_rank

ranks = np.arange(1, 31)
figure, axis = plt.subplots(figsize=(6, 3))
axis.step(ranks, hit_rate(ranks, 20), where="mid", label="HR@20")
axis.plot(ranks, reciprocal_rank(ranks, 20), ".-", label="MRR@20")
axis.set(xlabel="rank of the target", ylabel="what this prediction counts")
axis.legend()

# %% [markdown]
# ## Why the mean over sessions
# Made-up data: nine short visits in which a model does poorly, and one endless visit that it finds
# easy. The mean over predictions is the endless visit's; the mean over sessions of the mean inside
# each gives every visitor one vote. That is jmrec's primary figure (over positions 1 to 20).

# %%
from jmrec.metrics.ranks import session_mean

sessions = np.repeat(np.arange(10), [2] * 9 + [60])
ranks = np.where(sessions == 9, 1, 40)
values = reciprocal_rank(ranks, 20)
figure, axis = plt.subplots(figsize=(5, 3))
means = {
    "mean over\npredictions": values.mean(),
    "mean over\nsessions": session_mean(values, sessions),
}
axis.bar(means.keys(), means.values())
axis.set(ylabel="MRR@20", title="the same ranks, two averages")

# %% [markdown]
# ## Two rules, and the best that can be
# Rules that need no training stand in every table of jmrec. *Popularity* recommends what was
# clicked most; *Markov* what followed the last item most often. ToyShop's *oracle* knows the
# process that drew the sessions, so nobody can beat it but by luck, and it is far from perfect too:
# people are not predictable. We look at **validation**; test is for the end.

# %%
from jmrec.data.toyshop import Oracle
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.rankers.cooccurrence import markov
from jmrec.evaluation.rankers.known import popularity
from jmrec.metrics.bootstrap import interval

V = len(dataset.items)
past = dataset.splits["train"]
rankers = [
    StaticRule("popularity", popularity(past, V)),
    markov(past, V, 100.0),
    Oracle(home / "shop"),
]
ranked = {r.name: rank(r, validation, n_items=V, exclude_seen=True).ranks[0] for r in rankers}
figure, axis = plt.subplots(figsize=(7, 2.5))
for place, (name, ranks) in enumerate(ranked.items()):
    means, clusters = units(per_prediction(ranks, "MRR@20"), validation, "session")
    low, high = interval(means, clusters)
    axis.plot([low, high], [place, place], color="tab:blue")
    axis.plot(means.mean(), place, "o", color="tab:blue")
axis.set(xlabel="MRR@20, mean over sessions, with its 95 % interval", xlim=(0, None))
axis.set_yticks(range(len(ranked)), ranked)

# %% [markdown]
# And on cold targets? A count is zero for all of them; that is the gap that jmrec wants to close.

# %%
new = cold[validation.target]
figure, axis = plt.subplots(figsize=(7, 3))
for shift, (label, mask) in zip((-0.2, 0.2), {"warm targets": ~new, "cold targets": new}.items()):
    figures = [
        session_mean(reciprocal_rank(r, 20)[mask], validation.session[mask])
        for r in ranked.values()
    ]
    axis.bar(np.arange(len(ranked)) + shift, figures, width=0.4, label=label)
axis.set_xticks(range(len(ranked)), ranked)
axis.set(ylabel="MRR@20")
axis.legend()

# %% [markdown]
# ## Limits
# ToyShop is a toy: its visitors follow one process, of which the oracle knows everything. Real
# shops have no oracle, and which rule is best differs from shop to shop.
#
# ## Questions to try
# 1. Give all six items of the example the same score. Which rank does the target get, and which
#    would it get if ties counted *for* the model?
# 2. Score positions 1 and later ones apart (`validation.position`). Where is Markov better, and why
#    can popularity not be?
# 3. Change the back-off of `markov` from 100 to 1 and to 10 000. What does it become at the ends?
# 4. Set `exclude_seen=False`. Which rule suffers, and should it?
# 5. Make the shop anew with another `seed`. How far do the figures move beside their intervals?
