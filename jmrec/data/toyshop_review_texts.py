"""The wording of ToyShop's reviews, drawn by chance: no sentence says for sure how a row ends.

The words of ``jmrec.data.toyshop_texts.LOOKS`` stand in `_LOOK_LINES` and nowhere else, so it is
known how often a review says what the picture shows.
"""

import numpy as np

from jmrec.data.toyshop_texts import BRANDS, CATEGORIES, LOOKS, MATERIALS, SEASONS, Words

HONEST = 0.85
"""How often the tone of a review is that of its label; else it is the other one or lukewarm."""
LOOK_SHARE = 0.04
"""Share of the reviews that name a shape, a colour or a pattern."""
HINT_SHARE = 0.4
"""Share of the reviews that say something of their author, one in ten of them misleading."""

_SAID = {"category": CATEGORIES, "material": MATERIALS, "brand": BRANDS, "season": SEASONS}
_TONES: dict[str, tuple[str, ...]] = {
    "happy": (
        "I love this {thing}.",
        "Very happy with the {thing}!",
        "What a lovely {thing}, I would buy it again.",
        "A great {thing}, five out of five.",
        "My {thing} arrived and it is perfect.",
        "Wonderful, it makes me smile every day.",
        "Exactly what I was hoping for.",
        "Best purchase of the year so far.",
        "So pleased with it, warmly recommended.",
        "The {thing} is a joy to use.",
        "Good {thing}, good price, glad I ordered it.",
        "Can not fault it at all.",
    ),
    "sad": (
        "I do not like this {thing}.",
        "Very disappointed with the {thing}.",
        "What a sad {thing}, never again.",
        "A poor {thing}, one out of five.",
        "My {thing} arrived and went straight back.",
        "Awful, I regret the money.",
        "Not at all what I was hoping for.",
        "Worst purchase of the year so far.",
        "So unhappy with it, keep away.",
        "The {thing} is a pain to live with.",
        "Bad {thing}, waste of money, sorry I ordered it.",
        "I gave it away after one day.",
    ),
    "lukewarm": (
        "It is a {thing}, what can I say.",
        "The {thing} is all right.",
        "Bought the {thing} a week ago.",
        "Neither good nor bad.",
        "It does what it should.",
        "Got this {thing} as a present.",
    ),
}
_FACTS: dict[str, tuple[str, ...]] = {
    "material": (
        "It is made of {word}.",
        "The {word} feels as expected.",
        "You notice the {word} at once.",
        "Mine is {word} all through.",
    ),
    "season": (
        "I got it for {word}.",
        "It goes with {word}.",
        "Just in time for {word}.",
        "They sell it for {word}.",
    ),
    "brand": (
        "It comes from {word}.",
        "My second one by {word}.",
        "{word} made it.",
        "The label says {word}.",
    ),
    "category": (
        "I needed a new {word}.",
        "My old {word} broke.",
        "We had no {word} at home.",
        "It replaces another {word}.",
    ),
}
_REASONS: dict[str, tuple[str, ...]] = {
    "material": (
        "The {word} is not for me.",
        "I never got along with {word}.",
        "If only it were not {word}.",
        "Why did they have to use {word}?",
    ),
    "season": (
        "I have no use for {word} things.",
        "Everything about {word} bores me.",
        "Too much {word} for my taste.",
        "It reminds me of {word}, and not in a good way.",
    ),
    "looks": (
        "I can not bear to look at it.",
        "It hurts my eyes.",
        "On the shelf it looks wrong.",
        "The design is not my taste.",
        "In the photo I thought I could live with it.",
        "It does not go with anything I own.",
    ),
}
_LOOK_LINES = (
    "The {word} is as in the photo.",
    "That {word} stands out.",
    "You see the {word} first.",
    "My partner noticed the {word}.",
)
_LOVES: Words = (
    (
        "long walks with the dog",
        "camping by the lake",
        "fresh air and mud",
        "climbing on weekends",
        "my vegetable garden",
        "sleeping in a tent",
        "birdwatching at dawn",
        "cycling in the hills",
    ),
    (
        "quiet evenings with a book",
        "tea and slow music",
        "tidy drawers",
        "letters on good paper",
        "antique furniture",
        "chess and crosswords",
        "museums on a weekday",
        "knitting in silence",
    ),
    (
        "loud parties with friends",
        "dancing until morning",
        "new gadgets",
        "karaoke nights",
        "city lights and street food",
        "video games",
        "concerts and crowds",
        "everything that beeps",
    ),
)
_HATES: Words = (
    ("sitting indoors", "lifts and offices", "television all day", "city traffic"),
    ("noise and hurry", "crowded rooms", "messy desks", "flashing screens"),
    ("silence", "early nights", "dusty old stuff", "staying at home"),
)
_LOVE_FRAMES = (
    "I am one for {word}.",
    "As somebody who loves {word}, I am picky.",
    "For me life is {word}.",
    "Those who know me think of {word}.",
    "Give me {word} any day.",
    "I spend my time on {word}.",
)
_HATE_FRAMES = (
    "I can not stand {word}.",
    "Nothing is worse than {word}.",
    "Spare me {word}.",
    "I run away from {word}.",
)
_FILLERS = (
    "Delivery took three days.",
    "The parcel was well packed.",
    "Ordered on a Monday.",
    "The neighbour took it in.",
    "I read other reviews first.",
    "Customer service answered quickly.",
    "It was a birthday present.",
    "I paid with a voucher.",
)


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _hint(taste: int, rng: np.random.Generator) -> str:
    if rng.random() < 0.1:
        taste = int(rng.integers(len(_LOVES)))
    if rng.random() < 0.6:
        return _pick(_LOVE_FRAMES, rng).format(word=_pick(_LOVES[taste], rng))
    return _pick(_HATE_FRAMES, rng).format(word=_pick(_HATES[taste], rng))


def write_review(
    values: dict[str, int], taste: int, disliked: bool, reason: str, rng: np.random.Generator
) -> str:
    """Write one review.

    Args:
      values: Attribute name -> value of the item: shape, colour, pattern, category, material, brand
        and season.
      taste: The group of the author, 0 to 2.
      disliked: Whether the author disliked the item.
      reason: Why, where it was disliked: "material", "season", "looks" or "" for no reason.
      rng: Draws the wording.

    Returns:
      One to six sentences.

    Example:
      >>> values = dict.fromkeys(("shape", "colour", "pattern", "category", "material"), 1)
      >>> values |= {"brand": 0, "season": 3}
      >>> write_review(values, 0, True, "looks", np.random.default_rng(4)) != ""
      True
    """
    tone = "sad" if disliked else "happy"
    if rng.random() > HONEST:
        tone = ("lukewarm", "happy" if disliked else "sad")[int(rng.random() < 0.3)]
    lines = [_pick(_TONES[tone], rng).format(thing=_pick(CATEGORIES[values["category"]], rng))]
    if rng.random() < 0.6:
        name = _pick(tuple(_FACTS), rng)
        lines.append(_pick(_FACTS[name], rng).format(word=_pick(_SAID[name][values[name]], rng)))
    if disliked and reason and rng.random() < 0.7:
        word = _pick(_SAID[reason][values[reason]], rng) if reason in _SAID else ""
        lines.append(_pick(_REASONS[reason], rng).format(word=word))
    if rng.random() < LOOK_SHARE:
        name = _pick(tuple(LOOKS), rng)
        lines.append(_pick(_LOOK_LINES, rng).format(word=_pick(LOOKS[name][values[name]], rng)))
    if rng.random() < HINT_SHARE:
        lines.append(_hint(taste, rng))
    if rng.random() < 0.4:
        lines.append(_pick(_FILLERS, rng))
    return " ".join(lines[k] for k in rng.permutation(len(lines)))
