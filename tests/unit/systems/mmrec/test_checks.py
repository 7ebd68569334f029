"""What a text invents, by hand."""

import pytest

from jmrec.systems.mmrec.checks import count_invented, invented, shown_to
from jmrec.systems.mmrec.writers.writer import Source


@pytest.mark.parametrize(
    ("text", "sources", "want"),
    [
        ("", [], []),
        ("It costs 1,000 and 2.5 dollars.", ["1000 or 2,5"], []),
        ("It costs a thousand dollars.", ["1,000"], []),
        ("It costs 1,000.", ["100"], ["1,000"]),
        ("In 1994, 25 % liked it.", ["1994"], ["25"]),
        ("The 1980s.", ["the 1980s"], []),
        ("Seventy-two of ninety.", ["72", "90"], []),
        ("One of the best, for one.", ["nothing"], []),
        ("Two cups.", ["cups"], ["Two"]),
        ("He likes Woody Allen and Allen's films.", ["Woody is an allen"], []),
        ("The film by Woody Allen and Mia is good.", ["Mia"], ["Woody Allen"]),
        ("However, I think I'm right.", ["x"], []),
        ("It is by Jean-Luc O'Neil.", ["jean luc", "O'Neil"], []),
        ("Seen in Paris. Paris is nice, says Ann.", ["x"], ["Paris", "Ann"]),
        ("A film in THX 1138.", ["thx 1138"], []),
    ],
)
def test_invented(text: str, sources: list[str], want: list[str]) -> None:
    assert invented(text, sources) == want


def test_counts() -> None:
    source = Source("a", "Trainspotting", "by Danny Boyle", ("Seen 3 times.",))
    assert shown_to(source) == ["Trainspotting", "by Danny Boyle", "Seen 3 times."]
    texts = ["As Danny Boyle said 3 times.", "In 4 words by Irvine Welsh.", ""]
    got = count_invented(texts, [source] * 3)
    assert got == {"texts": 2, "with_invented": 1, "numbers": 1, "names": 1}
