"""Whether what is served answers as its run does, in numbers and in sentences."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jmrec.data.schema import Sessions
from jmrec.evaluation.figures import figures
from jmrec.evaluation.policy import Correction, make_policy
from jmrec.evaluation.protocol import Predictions, Ranker, ask, make_predictions, rank
from jmrec.evaluation.results import RANKING, make_cost
from jmrec.report.serving import serving_sentences
from jmrec.serving import Served
from jmrec.systems.system import Ranks

AGREE = 1000
"""For so many sessions the artefact's and the run's answers are compared."""
TIE = 1e-5
"""Scores that differ by less are equal: two programs add in another order."""


def few(system: Ranks) -> tuple[Sessions, Predictions]:
    """Return training sessions, and the predictions of the last item of each."""
    train = system.data.dataset.splits["train"]
    count = min(len(train), AGREE)
    stop = int(train.offsets[count])
    events = {name: getattr(train, name)[:stop] for name in ("items", "times", "events", "ratings")}
    some = replace(
        train, ids=train.ids[:count], users=train.users[:count],
        offsets=train.offsets[: count + 1], targets=np.ones(stop, bool), **events,
    )  # fmt: skip
    made = make_predictions(some)
    return some, made.take(made.is_last)


def agree(system: Ranks, ranker: Ranker, served: Served) -> dict[str, Any]:
    """Ask an artefact and the run's own evaluation for the best 20 of many sessions.

    The run's items are the candidates, without a correction. The sessions are training ones, so
    that nothing is learned of test.

    Returns:
      How many "sessions" were asked, and on how many the two lists are the "same"; at a place
      where two items tie (new ones do, for a student that knows ids alone) either may stand. Which
      share of the run's lists is "shared". How many items are "new" since: a blend weighs scores
      by their spread over all items.
    """
    dataset = system.data.dataset
    sessions, asked = few(system)
    # A target would come after others of the same score, so none is given.
    asked = replace(asked, target=np.full(len(asked), -1, np.int32))
    ranked = rank(
        ranker, asked,
        n_items=len(dataset.items), exclude_seen=dataset.exclude_seen, top=20,
    )  # fmt: skip
    plain = make_policy(
        served.ids, dataset.exclude_seen, Correction(allow=tuple(dataset.items.ids))
    )
    answering = Served(
        served.ranker, served.ids, served.titles, plain, served.where, served.event_names,
        index=served.index,
    )  # fmt: skip
    clicks = [slice(start, start + p) for start, p in zip(asked.seen_start, asked.position)]
    found = answering.recommend_batch(
        [[served.ids[item] for item in sessions.items[each]] for each in clicks],
        top=20,
        times=[sessions.times[each].tolist() for each in clicks],
        events=[[served.event_names[code] for code in sessions.events[each]] for each in clicks],
    )
    same, shared = [], []
    for best, rows, scores in zip(found, ranked.top_ids, ranked.top_scores, strict=True):
        given = [served.ids[row] for row in rows if row >= 0]
        tied = np.isclose([each["score"] for each in best], scores[: len(best)], rtol=TIE, atol=TIE)
        agreed = [each["item_id"] == item or tie for each, item, tie in zip(best, given, tied)]
        same.append(len(best) == len(given) and all(agreed))
        both = {each["item_id"] for each in best} & {*given}
        shared.append(len(both) / max(len(given), 1))
    return {
        "sessions": len(same),
        "same": sum(same),
        "shared": float(np.mean(shared)) if shared else 1.0,
        "new": len(served.ids) - len(dataset.items),
    }


def cost_of(system: Ranks, whole: Ranker, kept: Ranker) -> dict[str, float]:
    """Return what a smaller ranker costs, on validation: "whole" and "kept", the primary figure.

    Both rank the first sessions, at most `AGREE`, among the run's items.

    Args:
      system: The run.
      whole: What would be served else.
      kept: The smaller one.
    """
    dataset = system.data.dataset
    asked = ask(dataset, "validation")
    asked = asked.take((asked.place <= 20) & (asked.session < AGREE))
    found = {}
    for name, ranker in (("whole", whole), ("kept", kept)):
        ranked = rank(
            ranker, asked, n_items=len(dataset.items), exclude_seen=dataset.exclude_seen, top=0
        )
        of_sessions = figures(ranked.ranks[0], asked)[RANKING["figure"]]
        found[name] = float(of_sessions[RANKING["metric"]] or 0.0)
    return found


def _why_not(same: Mapping[str, int]) -> str:
    """Return why some lists may differ, where that is known."""
    if same["same"] == same["sessions"] or not same.get("new"):
        return ""
    return f"; {same['new']:,} items are new since then, and scores are weighed over all items"


def describe(section: dict[str, Any]) -> list[str]:
    """Return what `measure` found, in sentences."""
    same, start = section.get("same top 20"), section["seconds"]
    users = f" and {section['users']:,} users" if "users" in section else ""
    agreed = "" if same is None else (
        f" Of the run's 20 best it names {same['shared']:.0%} on {same['sessions']:,} sessions."
        if section.get("keep") else
        f" The same top 20 as the run's evaluation on {same['same']:,} of {same['sessions']:,} "
        f"sessions{_why_not(same)}."
    )  # fmt: skip
    held, index = section.get("sessions held"), section.get("index")
    return [
        *filter(None, [section.get("why")]),
        f"{section['items']:,} items{users} in {section['bytes'] / 1e6:.2f} MB, loaded in "
        f"{start['load']:.2f} s; {sum(start.values()):.2f} s from a new process to its first "
        f"answer.{agreed}",
        *(
            [
                f"Its index looks at {index['look']:,} of {index['cells']:,} cells and finds "
                f"{index['recall']:.1%} of the exact best {index['top']} ({index['sessions']:,} "
                "training sessions)."
            ]
            if index
            else []
        ),
        *(
            [f"It holds {held:,} training sessions: the items of each, and nothing of people."]
            if held
            else []
        ),
        *serving_sentences(None, {**make_cost(), "serving": section}),
    ]
