"""ToyShop's texts: several words a value and several sentences a field, drawn by chance.

``LOOKS`` holds the only words that ever name a visual attribute; no other text uses them.
"""

import numpy as np

Words = tuple[tuple[str, ...], ...]

CATEGORIES: Words = (
    ("mug", "cup", "tumbler"),
    ("lamp", "lantern", "nightlight"),
    ("rucksack", "satchel", "handbag"),
    ("cap", "hat", "beanie"),
    ("pillow", "cushion", "bolster"),
    ("clock", "timepiece", "alarm"),
)
MATERIALS: Words = (
    ("oak", "walnut", "timber"),
    ("steel", "iron", "metal"),
    ("wool", "cashmere", "mohair"),
    ("ceramic", "porcelain", "stoneware"),
    ("leather", "suede", "hide"),
    ("glass", "crystal", "glassware"),
)
BRANDS: Words = (
    ("Norvik", "Norvik & Sons"),
    ("Almera", "House of Almera"),
    ("Tiller", "Tiller Works"),
    ("Castano", "Castano Studio"),
    ("Hokuto", "Hokuto Goods"),
    ("Bramley", "Bramley Bros"),
)
SEASONS: Words = (
    ("winter", "frost", "snowy days"),
    ("spring", "blossom", "april"),
    ("summer", "beaches", "july"),
    ("autumn", "harvest", "october"),
)
LOOKS: dict[str, Words] = {
    "shape": (
        ("disc", "circle"),
        ("square", "quadrate"),
        ("triangle", "pyramid"),
        ("star", "asterisk"),
        ("cross", "plus sign"),
        ("crescent", "moon"),
    ),
    "colour": (
        ("red", "scarlet"),
        ("orange", "amber"),
        ("lime", "chartreuse"),
        ("green", "emerald"),
        ("cyan", "turquoise"),
        ("blue", "azure"),
        ("violet", "purple"),
        ("pink", "magenta"),
    ),
    "pattern": (
        ("solid", "plain"),
        ("banded", "layered"),
        ("pinstriped", "upright-striped"),
        ("dotted", "polka-dot"),
        ("checked", "chequered"),
        ("rimmed", "outlined"),
    ),
}

_TITLES = (
    "{category}",
    "{adjective} {category}",
    "{category} by {brand}",
    "the {adjective} {category}",
)
_ADJECTIVES = ("classic", "handy", "everyday", "trusty", "lovely", "new", "favourite", "fine")
_SEASON_LINES = (
    "Made for {season}.",
    "A good companion for {season}.",
    "Our pick for {season}.",
    "Think of {season}.",
)
_LOOK_LINES = (
    "Look: {colour}, {pattern}, {shape}.",
    "It shows a {pattern} {shape} in {colour}.",
    "The motif is a {colour} {shape}, {pattern}.",
    "Seen from afar, a {colour} {pattern} {shape}.",
)
_FILLERS = (
    "Ships within two days.",
    "Easy to clean.",
    "Designed to last.",
    "Comes in a gift bag.",
    "Customers come back for it.",
    "Tested by our team.",
)
_DETAILS = (
    "made of {material}",
    "{material} body",
    "material: {material}",
    "crafted from {material}",
)
_EXTRAS = ("care label inside", "two year warranty", "spare parts on request", "imported")


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def write_texts(values: dict[str, int], look: bool, rng: np.random.Generator) -> dict[str, str]:
    """Describe one item in words.

    Args:
      values: Attribute name -> value; category, material, brand, season, and with ``look`` also
        shape, colour and pattern.
      look: Whether the description says what the picture shows.
      rng: Draws the wording.

    Returns:
      title, description, brand and details.

    Example:
      >>> values = {"category": 0, "material": 1, "brand": 2, "season": 3}
      >>> sorted(write_texts(values, False, np.random.default_rng(0)))
      ['brand', 'description', 'details', 'title']
    """
    brand = BRANDS[values["brand"]]
    title = _pick(_TITLES, rng).format(
        category=_pick(CATEGORIES[values["category"]], rng),
        adjective=_pick(_ADJECTIVES, rng),
        brand=brand[0],
    )
    lines = [
        _pick(_SEASON_LINES, rng).format(season=_pick(SEASONS[values["season"]], rng)),
        _pick(_FILLERS, rng),
    ]
    if look:
        said = {name: _pick(words[values[name]], rng) for name, words in LOOKS.items()}
        lines.append(_pick(_LOOK_LINES, rng).format(**said))
    details = [
        _pick(_DETAILS, rng).format(material=_pick(MATERIALS[values["material"]], rng)),
        _pick(_EXTRAS, rng),
    ]
    return {
        "title": title[0].upper() + title[1:],
        "description": " ".join(lines[k] for k in rng.permutation(len(lines))),
        "brand": _pick(brand, rng),
        "details": "; ".join(details[k] for k in rng.permutation(2)),
    }
