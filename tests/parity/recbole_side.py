"""RecBole's side of ``python -m jmrec.tools.benchmark sessions``; jmrec is not needed to run it.

RecBole's own models and their loss, on batches that are made as its loader makes them: each session
so far is a row, padded on the right, and its next item the target.
"""

import importlib
import itertools
import json
import os
import resource
import sys
import time

import numpy as np

SETTINGS = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "NEG_PREFIX": "neg_", "MAX_ITEM_LIST_LENGTH": 50,
    "device": "cpu", "embedding_size": 64, "loss_type": "CE",
}  # fmt: skip
BLOCKS = {
    "n_layers": 2, "n_heads": 2, "hidden_size": 64, "inner_size": 256, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5, "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}  # fmt: skip
MODELS = {
    "sasrec": ("SASRec", BLOCKS),
    "gru4rec": ("GRU4Rec", {"hidden_size": 128, "num_layers": 1, "dropout_prob": 0.3}),
    "narm": ("NARM", {"hidden_size": 128, "n_layers": 1, "dropout_probs": [0.25, 0.5]}),
    "stamp": ("STAMP", {}),
    "core": ("CORE", {**BLOCKS, "dnn_type": "trm", "sess_dropout": 0.2, "item_dropout": 0.2,
                      "temperature": 0.07}),
    "srgnn": ("SRGNN", {"step": 1}),
}  # fmt: skip
"""RecBole's own settings, those of its properties/model."""


class Items:
    """What the model asks of a data set."""

    def __init__(self, count):
        self.count = count
        self.field2seqlen = {"item_id_list": 50}

    def num(self, field):
        return self.count


def pairs_of(data):
    """Return windows int64 [N, 50] (0 is padding), their sizes and targets; items from 1."""
    offsets, items = data["offsets"], data["items"].astype(np.int64) + 1
    ends = np.concatenate([np.arange(a + 1, b) for a, b in itertools.pairwise(offsets)])
    starts = np.concatenate([np.full(max(b - a - 1, 0), a) for a, b in itertools.pairwise(offsets)])
    size = np.minimum(ends - starts, 50)
    column = np.arange(50)
    at = np.where(column < size[:, None], (ends - size)[:, None] + column, 0)
    return np.where(column < size[:, None], items[at], 0), size, items[ends]


def training(model, torch, data, settings, cut):
    windows, size, target = pairs_of(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    random = np.random.default_rng(settings["seed"])
    model.train()
    while True:
        done = 0
        while done < settings["pairs"]:
            rows = random.integers(0, len(windows), settings["batch"])
            width = size[rows].max() if cut else 50
            batch = {
                "item_id_list": torch.from_numpy(windows[rows, :width]),
                "item_length": torch.from_numpy(size[rows]),
                "item_id": torch.from_numpy(target[rows]),
            }
            optimizer.zero_grad()
            loss = model.calculate_loss(batch)
            loss.backward()
            optimizer.step()
            done += len(rows)
        yield done, loss.detach().numpy()


def evaluating(model, torch, data, settings, cut):
    from recbole.evaluator.collector import Collector

    windows = np.where(data["windows"] >= 0, data["windows"] + 1, 0).astype(np.int64)
    size = (data["windows"] >= 0).sum(1).astype(np.int64)
    target = torch.from_numpy(data["target"].astype(np.int64) + 1)
    with torch.no_grad():
        for parameter in model.parameters():  # as they begin, biases are 0 and some scores too
            parameter.add_(0.1 * torch.randn(parameter.shape))
        # STAMP adds the vector of padding to the mean, as often as there is some.
        model.item_embedding.weight[0] = 0
    named = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    np.savez(settings["weights"], **named)
    metrics = {"metrics": ["Hit", "MRR"], "topk": [20], "eval_args": {"mode": {"test": "full"}}}
    model.eval()
    while True:
        collector = Collector({**SETTINGS, **metrics})
        with torch.no_grad():
            for start in range(0, len(windows), 512):
                some = slice(start, start + 512)
                width = size[some].max() if cut else 50
                batch = {
                    "item_id_list": torch.from_numpy(windows[some, :width]),
                    "item_length": torch.from_numpy(size[some]),
                }
                scores = model.full_sort_predict(batch)
                scores[:, 0] = -np.inf
                rows = torch.arange(len(scores))
                collector.eval_batch_collect(scores, batch, rows, target[some])
                if start == 0:
                    first = scores[:20, 1:101].numpy().copy()
        yield len(windows), first


def main(kind, settings):
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {settings["core"]})
    for name, kind_of in (("bool", bool), ("float", float), ("int", int), ("object", object)):
        if name not in np.__dict__:
            setattr(np, name, kind_of)  # RecBole asks for names that numpy has dropped
    import torch

    encoder = settings["encoder"]
    title, sizes = MODELS[encoder]
    of = importlib.import_module(f"recbole.model.sequential_recommender.{encoder}")
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    torch.autograd.set_detect_anomaly(kind == "train shipped")
    data = dict(np.load(settings["data"]))
    model = getattr(of, title)({**SETTINGS, **sizes}, Items(int(data["n_items"]) + 1))
    what, how = kind.split()
    make = evaluating if what == "evaluate" else training
    rounds = make(model, torch, data, settings, how == "cut")
    units, out = 0, np.zeros(1)
    for _ in sys.stdin:
        start = time.process_time()
        units, out = next(rounds)
        print(json.dumps({"seconds": time.process_time() - start}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    flat = out.reshape(-1)[:2000].astype(float).tolist()
    print(json.dumps({"peak": peak, "units": units, "out": flat}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
