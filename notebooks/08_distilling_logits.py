# %% [markdown]
# # 08 · Distilling logits, from teacher to student
#
# A click says one thing: *this* item came next. A teacher that has read the items says more: these
# ten might have come as well, those two hundred hardly. Its logits, turned into probabilities, are
# what a small student can learn from. We watch every step of that on a small shop.
#
# **Needs** nothing that another notebook makes.
# **Takes** about 45 seconds of processor time.
#
# ## The shop, and a teacher that reads
# ToyShop draws 256 items and 1,500 sessions. The teacher is a Transformer (SASRec) of width 64 over
# ids, words and colours of the items; the student is a GRU of width 24 that knows ids alone.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.feature_extraction.text import TfidfVectorizer

import jmrec
from jmrec import losses
from jmrec.data.pictures import decode_pictures
from jmrec.data.toyshop import Oracle

plt.rcParams["figure.constrained_layout.use"] = True
home = tempfile.mkdtemp()
small = {"data.toyshop.n_items": 256, "data.toyshop.sessions": 1500}
data = jmrec.prepare("session:size=tiny", home, small, quiet=True)
items, V, L = data.items, len(data.items), 10


def arrays(split):
    """Items [N, L] and what came next [N, L]; below 0 is padding."""
    rows = np.full((len(data.splits[split]), L + 1), -1)
    for row, session in zip(rows, data.splits[split]):
        row[: len(session)] = session[: L + 1]
    return rows[:, :-1], rows[:, 1:]


train, validation = arrays("train"), arrays("validation")
pictures, _ = decode_pictures(items, 32)
colours = (pictures / 255).reshape(V, 8, 4, 8, 4, 3).mean((2, 4)).reshape(V, -1)
texts = [" ".join(fields) for fields in zip(*items.text.values(), strict=True)]
words = TfidfVectorizer(max_features=300).fit_transform(texts).toarray()
features = np.concatenate([words, 0.3 * colours], 1).astype(np.float32)
print("sessions", train[0].shape, "features of the items", features.shape)

# %% [markdown]
# ## A loop for both
# Twenty lines, for any model and any loss. A loss gets the logits of the whole catalogue, [B, L, V],
# and gives one number a position; masked positions (padding) give 0 and do not count.


# %%
def logits(model, params, item):
    reads = {"features": features} if model is teacher else {}
    states, vectors = model.apply(params, item, **reads)
    return states @ vectors.T


def fit(model, loss, steps, rate, seed=0):
    """Return parameters, and MRR on validation after every 20 updates."""
    params, adam = model.init(jax.random.key(seed)), optax.adamw(rate, weight_decay=0.01)

    @jax.jit
    def step(params, state, rows, item, target):
        def mean(params):
            each = loss(logits(model, params, item), target, rows)
            return each.sum() / (target >= 0).sum()

        updates, state = adam.update(jax.grad(mean)(params), state, params)
        return optax.apply_updates(params, updates), state

    judge = jax.jit(lambda params: mrr(logits(model, params, validation[0]), validation[1]))
    state, rng, curve = adam.init(params), np.random.default_rng(seed), []
    for update in range(steps):
        rows = rng.choice(len(train[0]), 64, replace=False)
        params, state = step(params, state, rows, train[0][rows], train[1][rows])
        if update % 20 == 19:
            curve.append(float(judge(params)))
    return params, curve


def mrr(scores, target):
    """Mean of 1 / rank of what came next, among all items; ties count against the model."""
    own = jnp.take_along_axis(scores, jnp.maximum(target, 0)[..., None], -1)
    rank = (scores >= own).sum(-1)
    return jnp.where(target >= 0, 1 / rank, 0).sum() / (target >= 0).sum()


# %%
def hard(scores, target, rows):
    """The click alone: minus the log-probability of what came next."""
    chosen = jnp.take_along_axis(scores, jnp.maximum(target, 0)[..., None], -1)[..., 0]
    return jnp.where(target >= 0, jax.nn.logsumexp(scores, axis=-1) - chosen, 0.0)


teacher = jmrec.models.build("sasrec", items=V, features=features.shape[1], width=64)
student = jmrec.models.build("gru4rec", items=V, width=24)
teacher_params, teacher_curve = fit(teacher, hard, 140, 3e-3)
teaches = np.asarray(jax.jit(lambda p: logits(teacher, p, train[0]))(teacher_params))
count = sum(each.size for each in jax.tree.leaves(teacher_params))
print(f"teacher: {count:,} numbers, MRR {teacher_curve[-1]:.3f}; its logits are {teaches.shape}")

# %% [markdown]
# ## What the teacher says of one session
# Above the clicks so far, framed what came next. Below the eight items that the teacher thinks
# likeliest, with its probability and, in brackets, the true one: ToyShop knows how it was drawn. (In it
# nobody clicks on an item twice, which the teacher was not told.)

# %%
row = int(np.argmax((train[1] >= 0).sum(1) >= 7))
item, target, last = train[0][row], train[1][row], 6
probability = np.asarray(jax.nn.softmax(teaches[row, last]))
truth = Oracle(f"{home}/data/toyshop").process
true = np.exp(truth.log_probabilities(item[: last + 1], np.inf))
figure, axes = plt.subplots(2, 8, figsize=(12, 3.6))
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
shown = [*item[: last + 1], target[last]]
for axis, each in zip(axes[0], shown):
    axis.imshow(pictures[each])
    axis.set_title(items.titles[each], fontsize=7)
plt.setp(axes[0, last + 1].spines.values(), color="tab:red", linewidth=3)
for axis, each in zip(axes[1], np.argsort(-probability)):
    axis.imshow(pictures[each])
    axis.set_title(f"{100 * probability[each]:.1f} % ({100 * true[each]:.1f} %)", fontsize=8)

# %% [markdown]
# The click names one item; the teacher names a neighbourhood, and the order in it. That is what a
# student can not see in 1,200 sessions.
#
# ## Temperature
# A trained teacher is sure of itself, so that all but a few items have nearly nothing. Divided by a
# **temperature** T above 1 before the softmax, the logits give the others a say.

# %%
figure, axis = plt.subplots(figsize=(7, 3))
for temperature in (1.0, 2.0, 4.0):
    soft = np.asarray(jax.nn.softmax(teaches[row, last] / temperature))
    axis.semilogy(np.sort(soft)[::-1], label=f"T = {temperature:g}")
axis.set(xlabel="items, the likeliest first", ylabel="probability", ylim=(1e-6, 1))
axis.legend()

# %% [markdown]
# ## The loss, by hand
# `losses.kl` is T² · KL(teacher ‖ student) of both at temperature T. Its gradient with respect to the
# student's logits is T (q − p): the student is pushed up where the teacher gives more than it does,
# and down where it gives less. T² keeps that push from vanishing, for q − p shrinks with 1/T.

# %%
T, rng = 2.0, np.random.default_rng(0)
beginner = rng.normal(size=V).astype(np.float32)
p, q = (np.asarray(jax.nn.softmax(each / T)) for each in (teaches[row, last], beginner))
by_hand = T**2 * (p * (np.log(p) - np.log(q))).sum()
of_library = losses.kl(teaches[row, last], beginner, temperature=T)
slope = jax.grad(lambda z: losses.kl(teaches[row, last], z, temperature=T))(beginner)
print(f"KL by hand {by_hand:.5f}, by jmrec.losses {float(of_library):.5f}")
print(f"largest difference of the gradients {np.abs(slope - T * (q - p)).max():.1e}")

# %% [markdown]
# ## A large catalogue: the top and the rest
# Logits of all V items for all positions are here a few megabytes; of a million items they would be
# 48 gigabytes. jmrec keeps a teacher's K likeliest and **one bucket for the rest**
# (`losses.topk_kl`). How close is that to the whole? And what if the rest is simply dropped?

# %%
z, s = jnp.asarray(teaches[row, last]), jnp.asarray(beginner)
order, ks = jnp.argsort(-z), np.array([1, 2, 5, 10, 20, 50, 100, 200])


@jax.jit
def of_top(top):
    tails = [losses.tail_logit(each[top], jax.nn.logsumexp(each)) for each in (z, s)]
    return losses.topk_kl(z[top], tails[0], s[top], tails[1]), losses.kl(z[top], s[top])


bucket, dropped = np.array([of_top(order[:k]) for k in ks]).T
figure, axis = plt.subplots(figsize=(7, 3))
axis.semilogx(ks, bucket, "o-", label="top K and a bucket for the rest")
axis.semilogx(ks, dropped, "o-", label="top K alone")
axis.axhline(float(losses.kl(z, s)), color="black", ls="--", label="all items")
axis.set(xlabel="K", ylabel="KL")
axis.legend()
print(f"all: {teaches.nbytes:,} bytes; K = 20: {teaches[..., 0].size * 20 * 8:,} with their rows")

# %% [markdown]
# With the bucket the divergence grows towards the whole one and is never above it: to merge items can
# only hide a difference. Without it the student may put all its mass outside of the top, unseen.
#
# ## Four students
# Of the same size, the same start and the same batches. They differ in the loss alone.

# %%
known = jnp.asarray(teaches)
top = jnp.argsort(-known, -1)[..., :20]
top_logits = jnp.take_along_axis(known, top, -1)
rest = losses.tail_logit(top_logits, jax.nn.logsumexp(known, axis=-1))


def soft(temperature):
    def loss(scores, target, rows):
        where = target >= 0
        divergence = losses.kl(known[rows], scores, temperature=temperature, where=where)
        return hard(scores, target, rows) + 3 * divergence

    return loss


def of_the_top(scores, target, rows):
    mine = jnp.take_along_axis(scores, top[rows], -1)
    tail = losses.tail_logit(mine, jax.nn.logsumexp(scores, axis=-1))
    divergence = losses.topk_kl(top_logits[rows], rest[rows], mine, tail, where=target >= 0)
    return hard(scores, target, rows) + 3 * divergence


students = {
    "clicks alone": hard,
    "and the teacher, T = 1": soft(1.0),
    "and the teacher, T = 2": soft(2.0),
    "and its top 20, T = 1": of_the_top,
}
fitted = {name: fit(student, loss, 200, 1e-2) for name, loss in students.items()}

# %%
figure, axis = plt.subplots(figsize=(8, 3.5))
for name, (_, curve) in fitted.items():
    axis.plot(20 * np.arange(1, len(curve) + 1), curve, label=name)
axis.axhline(teacher_curve[-1], color="black", ls="--", label="the teacher")
axis.set(xlabel="update", ylabel="MRR on validation")
axis.legend(fontsize=8)

# %% [markdown]
# ## What has passed over
# How many of the teacher's ten likeliest are among the student's ten, on sessions that neither has
# seen? And how far is each from the truth? The uniform distribution is there to compare with.


# %%
def tens(scores):
    return np.argsort(-scores, -1)[..., :10]


where = validation[1] >= 0
theirs = np.asarray(jax.jit(lambda p: logits(teacher, p, validation[0]))(teacher_params))
real = np.full(theirs.shape, -1e9, np.float32)
for place in np.argwhere(where):
    real[*place] = truth.log_probabilities(validation[0][place[0], : place[1] + 1], np.inf)
rows = {"the teacher": theirs, "uniform": np.zeros_like(theirs)}
of_student = jax.jit(lambda params: logits(student, params, validation[0]))
rows |= {name: np.asarray(of_student(params)) for name, (params, _) in fitted.items()}
shared, distance = {}, {}
for name, scores in rows.items():
    both = (tens(scores)[..., None] == tens(theirs)[..., None, :]).any(-1).mean(-1)
    shared[name] = both[where].mean()
    apart = losses.kl(real, scores, valid=real > -100, where=where)
    distance[name] = float(apart.sum() / where.sum())
    print(f"{name:24} shares {shared[name]:.2f}, KL(truth ‖ it) {distance[name]:.2f}")
figure, axes = plt.subplots(1, 2, figsize=(11, 2.6), sharey=True)
axes[0].barh(list(shared), shared.values())
axes[0].set(xlabel="share of the teacher's ten")
axes[1].barh(list(distance), distance.values())
axes[1].set(xlabel="KL of the truth from it, in nats")

# %% [markdown]
# ## Limits
# One shop, one seed, one teacher that was stopped by hand where validation was good: the curves say
# how it goes, and not how much it brings. Only an evaluation with seeds and intervals does
# (notebook 06). A student learns the teacher's mistakes too: where the teacher is no better than the
# clicks, so is what it passes on. And a distribution that ranks well can be far too sure of itself, as
# the last figure shows.
#
# In jmrec the same losses are settings: `student.distill` (`kl`, `topk_kl`, ...), `student.top`,
# `students.NAME.logit` (the weight, here 3) and `student.hparams.teacher_temperature`.
#
# ## Questions to try
# 1. Set the weight of the teacher to 0.3 and to 30. Where is the best student?
# 2. Leave `hard` out of `soft`. Does the student need the clicks at all?
# 3. Put `losses.reverse_kl` or `losses.jensen_shannon` in the place of `losses.kl`.
# 4. Let the oracle teach: put `real`, made for `train`, in the place of `teaches`. How far does a
#    perfect teacher bring a GRU of width 24?
# 5. Give the student of the top 20 the temperature 2 (`rest` and `tail` too). The figure of the
#    temperatures says why that teaches less than all items do.
# 6. Train the teacher for 400 updates: it becomes worse, and surer. What becomes of its students?
