"""An independent referee: plain numpy, nothing of jmrec.

    python tests/integration/referee.py dump.npz

Reads what was recommended (jmrec evaluate --dump-topk) and computes HR, MRR and NDCG at 1, 5,
10 and 20 in three averages. Prints percent with four decimals.
"""

import sys

import numpy as np


def judge(path):
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    hits = data["ids"] == data["target"][:, None]
    assert (hits.sum(axis=1) <= 1).all(), "an item is recommended twice"
    rank = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    gains = {"HR": np.ones_like(rank), "MRR": 1 / rank, "NDCG": 1 / np.log2(1 + rank)}
    table = {"session": {}, "prediction": {}, "last": {}}
    early, scored = data["position"] <= 20, data["position"] <= 50
    for name, gain in gains.items():
        for k in (1, 5, 10, 20):
            value = np.where(rank <= k, gain, 0.0)
            sessions = [
                value[early & (data["session"] == s)].mean()
                for s in np.unique(data["session"][early])
            ]
            table["session"][f"{name}@{k}"] = np.mean(sessions)
            table["prediction"][f"{name}@{k}"] = value[scored].mean()
            table["last"][f"{name}@{k}"] = value[data["is_last"]].mean()
    return table


if __name__ == "__main__":
    for figure, row in judge(sys.argv[1]).items():
        print(figure, *(f"{name} {100 * value:.4f}" for name, value in row.items()))
