"""Details of people in a text, found by patterns and checksums, in place of which a tag is put.

Numbers with a checksum (cards, IBAN) are checked by python-stdnum, phone numbers by phonenumbers;
both are in the extra ``anonymise``. Addresses and names are in `jmrec.data.anonymise_places`.
"""

import importlib.util
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache

from jmrec.data.anonymise_places import ADDRESS, tag_names

NEEDS = ("phonenumbers", "stdnum")
"""Modules of the extra."""
KINDS = (
    "link", "email", "iban", "card", "ip", "address", "phone", "birth", "plate", "name",
)  # fmt: skip
"""The kinds of details, in the order in which they are looked for; a tag is a kind in brackets."""
REGIONS = (
    "DE", "AT", "CH", "US", "GB", "FR", "ES", "PL", "IT", "NL", "BE", "PT", "SE", "DK", "CZ", "IN",
    "BR", "AU",
)  # fmt: skip
"""Where a phone number without the prefix of a country may be from."""

_LINK = re.compile(
    r"(?:\b[a-z][a-z+]{2,9}://|\bwww\.|(?<![\w@.])(?=(?:[\w-]+\.)+[a-z]{2,10}/))[^\s<>\"'\])}]+",
    re.IGNORECASE,
)
_PEOPLE = re.compile(
    r"(?:[\w-]+\.)*(?:facebook|fb|instagram|twitter|x|tiktok|linkedin|github|gitlab|pinterest|"
    r"snapchat|"
    r"reddit|twitch|medium|vk|flickr|soundcloud|xing|threads|behance|patreon|paypal|t|wa|mastodon|"
    r"tumblr|youtube|vimeo|telegram|strava|goodreads|letterboxd|deviantart|last|bsky|venmo|ko-fi|"
    r"etsy"
    r")\.(?:com|de|fr|es|pl|org|net|me|fm|app|social|tv|co\.uk)"
)
_HOSTED = re.compile(
    r"(?!www\.)[\w-]+\.(?:tumblr|blogspot|wordpress|github|livejournal|substack|deviantart|"
    r"wixsite)\."
)
_USER = re.compile(
    r"[/=](?:@|%40|~)[\w.-]|[/?&](?:users?|u|uid|user_?(?:id|name)|login|members?|people|"
    r"authors?|in|"
    r"profiles?|profile\.php|accounts?|nutzer|benutzer|mitglied(?:er)?|profil|konto|kunden?|"
    r"usuarios?|"
    r"perfil|cuenta|utilisateurs?|membres?|compte|u[zż]ytkownik|channel|customers?|e?mail|name|"
    r"by|id"
    r")[/=?]\w|^[a-z+]+://[^/\s]+@",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?:mailto:)?[\w.+%'&*=~-]{1,64}(?:\s?@\s?|\s?[\[({]\s?(?:at|ät|@|arobase|arroba|"
    r"małpa)\s?[\])}]\s?)"
    r"(?:[\w-]{1,63}(?:\.|\s?[\[({]\s?(?:dot|punkt|point|punto|kropka|"
    r"\.)\s?[\])}]\s?)){1,6}[^\W\d_]{2,24}"
    r"|\b[\w.+-]{2,64}\s(?:at|ät)\s[\w-]{2,63}\s(?:dot|punkt)\s(?:com|org|net|de|uk|fr|es|pl|eu)\b",
    re.IGNORECASE,
)
_AT = re.compile(r"@|\b(?:at|ät|arobase|arroba|małpa)\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d+")
_IBAN = re.compile(r"\b[A-Z]{2}\s?\d{2}(?:[ \u00a0.-]?[A-Z0-9]){10,30}", re.IGNORECASE)
_IBAN_SHAPE = re.compile(r"[A-Z0-9]+(?:[ .-]?[A-Z0-9]*\d[A-Z0-9]*)*", re.IGNORECASE)
_IBAN_SAID = re.compile(r"\bIBAN\b\W{0,3}(?:\w+\W{1,2}){0,2}$", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.,+])\d(?:[ \u00a0-]?\d){11,22}(?!\w)")
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[0-8]|6[0-9])\d{10,17}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|"
    r"[689]\d)\d{11}"
    r"|35\d{14}|(?:1800|2131)\d{11}|0604\d{8}|62\d{14,17}"
)
_GOODS = re.compile(
    r"(?:\b(?:isbn|ean|gtin|upc|asin|sku|art(?:ikel)?|item|model|modell|ref(?:erence)?|order|"
    r"bestell\w*|"
    r"serien\w*|serial|part|patent|version|firmware|zam[oó]wieni\w*|pedido|commande)\b"
    r"[-\w.:#\s]{0,14})$",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
_VERSION = re.compile(r"(?:\bv|version|firmware|release|build|update)\s?\.?$", re.IGNORECASE)
_PHONE = re.compile(
    r"(?<![\w@#/.,+-])(?:\+\s?|\(\+?)?\d(?:[ \u00a0]?[-.()/\u2010-\u2013]{0,2}[ \u00a0]?\d){5,17}"
    r"(?:\s?(?:x|ext\.?|extension|dw\.?|durchwahl|poste|wewn\.?)\s?\d{1,6})?(?![\w]|[.,]\d)",
    re.IGNORECASE,
)
_CALL = re.compile(
    r"(?:\b(?:tel|tele(?:ph|f)\w*|t[eé]l[eé]\w*|phone|mobile?|m[oó]vil|cell|call|ring|text|fax|"
    r"handy\w*|"
    r"ruf\w*|anruf\w*|nummer|number|num[eé]ro|n[uú]mero|numer\w*|kom[oó]rk\w*|dzwo\w*|zadzwo\w*|"
    r"appel\w*|"
    r"ll[aá]m\w*|whats ?app|signal|sms|reach|erreich\w*|"
    r"joign\w*)\b)\W{0,3}(?:[^\W\d]+\W{1,2}){0,4}$",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\s?(?:€|\$|£|%|zł|euros?|eur|usd|dollars?|people|times|units|mg|kg|g|km|m|mm|cm|mah|rpm)\b"
)
_MONTH_WORD = r"[^\W\d_]{3,12}\.?"
_DATE = re.compile(
    r"(?<![\w.,/-])(?:(?P<iso>\d{4})([-/.])\d{1,2}\2\d{1,2}|"
    r"\d{1,2}([./-])\s?\d{1,2}\3\s?(?P<last>\d{4}|\d{2})"
    rf"|\d{{1,2}}(?:\.|st|nd|rd|th|er|º)?\s(?:de\s|of\s)?{_MONTH_WORD},?\s(?:del?\s)?(?:19|20)\d\d"
    rf"|{_MONTH_WORD}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s(?:19|20)\d\d)(?![\w/-]|\.\d)"
)
_BORN = re.compile(
    r"(?:\b(?:born|birth\w*|b-?day|dob|d\.o\.b|geb(?:oren|urt\w*)?|anniversaire|naiss\w*|n[eé]e?|"
    r"nac[ií]\w*|"
    r"nacimiento|cumplea\w*|urodz\w*|ur|nato|nata|nascit\w*)\b|[*†])[^.!?\n]{0,4}(?:[^.!?\n]|"
    r"\.(?=\s?\d)){0,40}$",
    re.IGNORECASE,
)
_BORN_AFTER = re.compile(
    r"^[^.!?\n\d]{0,12}\b(?:born|birth\w*|geboren|geburt\w*|nac[ií]\w*|urodz\w*)"
)
_SALE = re.compile(
    r"(?:releas\w*|publish\w*|erschien\w*|bought|purchas\w*|order\w*|gekauft|bestell\w*|deliver\w*|"
    r"geliefert|since|seit|stand|updated?|review\w*|version|edition|acheté|depuis|comprad\w*|"
    r"desde|kupi\w*)"
    r"[^.!?\n]{0,20}$",
    re.IGNORECASE,
)
_LETTERS = "A-ZÄÖÜ"
_PLATES = re.compile(
    rf"(?<![\w-])(?:[{_LETTERS}]{{1,3}}[- ][{_LETTERS}]{{1,2}}[- ]?[1-9]\d{{0,3}}[EH]?"  # Germany
    r"|[A-Z]{2}\d{2} ?[A-Z]{3}|[A-Z]\d{1,3} ?[A-Z]{3}"  # United Kingdom
    r"|[A-Z]{2}[- ]?\d{3}[- ]?[A-Z]{2}|\d{1,4}[- ]?[A-Z]{2,3}[- ]?\d{2}"  # France
    r"|\d{4}[- ]?[B-DF-HJ-NP-TV-Z]{3}|[A-Z]{1,2}[- ]?\d{4}[- ]?[A-Z]{2}"  # Spain
    r"|[A-Z]{2} ?(?:\d{5}|\d{4}[A-Z]|\d{3}[A-Z]{2}|\d[A-Z]\d{3}|\d[A-Z]{2}\d{2})"  # Poland
    r"|[A-Z]{3} ?(?:[A-Z]\d{3}|\d{2}[A-Z]{2}|\d[A-Z]\d{2}|\d{2}[A-Z]\d|\d[A-Z]{2}\d|"
    r"[A-Z]{2}\d{2}|\d{5}|\d{3}[A-Z]{2})"
    r"|[A-Z]{3}[- ]?\d{3,4}|\d{3}[- ]?[A-Z]{3})(?![\w]|-\w)"
)
_SURE_PLATES = re.compile(
    r"(?<![\w-])(?:[A-Z]{2}\d{2} [A-Z]{3}|[A-HJ-NP-TV-Z]{2}-\d{3}-[A-HJ-NP-TV-Z]{2})(?![\w]|-\w)"
)
_ANY_PLATE = re.compile(
    rf"(?<![\w-])(?=[\d \-•·{_LETTERS}]*\d)[{_LETTERS}\d]{{1,7}}"
    rf"(?:[ \-•·][{_LETTERS}\d]{{1,7}}){{0,2}}(?![\w]|-\w)"
)
_PLATE_SAID = re.compile(
    r"\b(?:(?:number|licen[cs]e|registration|reg)\s(?:plates?|number|no)|plates?|licen[cs]e|"
    r"registration|"
    r"kennzeichen\w*|nummernschild\w*|autonummer|immatricul\w*|plaque|matr[ií]cula\w*|rejestrac\w*|"
    r"tablic\w*|targa)\b",
    re.IGNORECASE,
)
_CAR = re.compile(
    r"\b(?:cars?|van|vehicle|parked|auto|autos|wagen|fahrzeug\w*|pkw|geparkt|voiture|v[eé]hicule|"
    r"gar[eé]e?|"
    r"coche|carro|aparcad\w*|samoch\w*|aut[aoe]m?)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?]\s+(?=[^\W\d_])")


def missing_modules() -> list[str]:
    """Return those of `NEEDS` that are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def tag_text(text: str, names: bool = True) -> tuple[str, Counter[str]]:
    """Put a tag in the place of each detail of a person that is found.

    Args:
      text: Any text.
      names: Whether names are looked for too.

    Returns:
      The text with tags such as "[email]", and how many of each of `KINDS` were put.

    Example:
      >>> tag_text("Write to anna@example.org or call +49 170 1234567, I was born on 3.5.1981.")
      ('Write to [email] or call [phone], I was born on [birth].',
        Counter({'email': 1, 'phone': 1, 'birth': 1}))
      >>> tag_text("Paid 4111 1111 1111 1111 from 192.168.0.7")[0]
      'Paid [card] from [ip]'
    """
    count: Counter[str] = Counter()
    digits = sum(map(str.isdigit, text))
    for kind, find in _FINDERS:
        if digits < _FEWEST_DIGITS[kind]:
            continue
        spans = list(find(text))
        if spans:
            text = _put(text, spans, f"[{kind}]")
            count[kind] += len(spans)
    if names:
        text, found = tag_names(text)
        if found:
            count["name"] += found
    return text, count


def _put(text: str, spans: list[tuple[int, int]], tag: str) -> str:
    parts, end = [], 0
    for start, stop in spans:
        parts += [text[end:start], tag]
        end = stop
    return "".join([*parts, text[end:]])


def _links(text: str) -> Iterator[tuple[int, int]]:
    for match in _LINK.finditer(text):
        link = match[0].rstrip(".,;:!?")
        host, _, path = re.sub(r"^[a-z+]+://", "", link, flags=re.IGNORECASE).partition("/")
        social = _PEOPLE.fullmatch(host.lower()) and path.strip("/")
        if social or _HOSTED.match(host.lower()) or _USER.search(link):
            yield match.start(), match.start() + len(link)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _around(text, _AT, _EMAIL, 150))


def _around(
    text: str, sign: re.Pattern[str], pattern: re.Pattern[str], reach: int
) -> Iterator[re.Match[str]]:
    """Yield matches of a pattern that lie within ``reach`` characters of a sign, which is quick."""
    start = stop = -1
    for match in sign.finditer(text):
        if start >= 0 and match.start() - reach > stop:
            yield from pattern.finditer(text, start, stop)
            start = -1
        start = max(match.start() - reach, 0) if start < 0 else start
        stop = min(match.end() + reach, len(text))
    if start >= 0:
        yield from pattern.finditer(text, start, stop)


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        ends = [i + 1 for i, c in enumerate(match[0]) if c.isalnum()]
        good = (n for n in reversed(ends) if iban.is_valid(match[0][:n], check_country=False))
        length = next(good, 0)
        if not length and _IBAN_SAID.search(text[: match.start()]):
            said = _IBAN_SHAPE.match(match[0])
            length = said.end() if said else 0
        if length:
            yield match.start(), match.start() + length


def _cards(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import luhn

    for match in _DIGITS.finditer(text):
        if _GOODS.search(text[: match.start()]):
            continue
        groups = [group.span() for group in re.finditer(r"\d+", match[0])]
        runs = [(a[0], b[1]) for i, a in enumerate(groups) for b in groups[i:]]
        for start, stop in sorted(runs, key=lambda run: run[0] - run[1]):
            number = re.sub(r"\D", "", match[0][start:stop])
            if _CARD.fullmatch(number) and luhn.is_valid(number):
                yield match.start() + start, match.start() + stop
                break


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _around(text, _DIGIT, ADDRESS, 150))


def _ips(text: str) -> Iterator[tuple[int, int]]:
    found = []
    for match in _IPV4.finditer(text):
        if _is_ip(match[0]) and not _VERSION.search(text[: match.start()]):
            found.append(match.span())
    for match in _IPV6.finditer(text):
        if len(match[0]) > 4 and re.search(r"\d", match[0]) and _is_ip(match[0]):
            found.append(match.span())
    yield from sorted(found)


def _is_ip(cell: str) -> bool:
    try:
        ipaddress.ip_address(cell)
    except ValueError:
        return False
    return True


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        number, before = match[0], text[: match.start()]
        said = _CALL.search(before[-80:]) is not None
        if _GOODS.search(before[-40:]) or _UNIT.match(text[match.end() : match.end() + 9]):
            continue
        if not said and (_DATE.match(number) or re.fullmatch(r"(?:(?:19|20)\d\d\W*)+", number)):
            continue
        if _is_phone(number, said):
            yield match.span()


@lru_cache(maxsize=10_000)
def _is_phone(number: str, said: bool) -> bool:
    """Return whether digits are a phone number; ``said`` is whether the words before say so."""
    digits = re.sub(r"\D", "", re.split(r"[^\W\d_]", number)[0])
    if said:
        return 6 <= len(digits) <= 17
    if re.match(r"\(?\+", number) or digits.startswith("00"):
        return 8 <= len(digits) <= 17
    if re.match(r"\(?0\d", number) and 9 <= len(digits) <= 14:
        return True
    if re.match(r"(?:1[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}", number):
        return True
    return 9 <= len(digits) <= 12 and any(_valid(number, region) for region in REGIONS)


def _valid(number: str, region: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _births(text: str) -> Iterator[tuple[int, int]]:
    for match in _around(text, _DIGIT, _DATE, 30):
        before, year = text[: match.start()][-60:], match["iso"] or match["last"]
        said = _BORN.search(before) or _BORN_AFTER.search(text[match.end() :])
        old = year is not None and 1900 <= int(year) <= 2010 and not _SALE.search(before)
        if said or old:
            yield match.span()


def _plates(text: str) -> Iterator[tuple[int, int]]:
    found: dict[int, int] = {}
    for start, stop in _sentences(text):
        part = text[start:stop]
        if not _DIGIT.search(part):
            continue
        said = [match.span() for match in _PLATE_SAID.finditer(part)]
        car = _CAR.search(part)
        pattern = _PLATES if said or car else _SURE_PLATES
        spans = [match.span() for match in pattern.finditer(part)]
        if said and not spans:
            spans = [match.span() for match in _ANY_PLATE.finditer(part) if _near(match, said)]
        if car and not spans:
            near = part[car.end() : car.end() + 24]
            found |= {
                start + car.end() + a: start + car.end() + b
                for a, b in (match.span() for match in _ANY_PLATE.finditer(near))
                if a < 12 and _mixed(near[a:b])
            }
        found |= {start + a: start + b for a, b in spans}
    yield from sorted(found.items())


def _near(match: re.Match[str], said: list[tuple[int, int]]) -> bool:
    length = sum(map(str.isalnum, match[0]))
    return 4 <= length <= 9 and any(-40 < match.start() - stop < 40 for _, stop in said)


def _mixed(code: str) -> bool:
    """Return whether a code of 4 characters or more has letters and digits, and is no measure."""
    letters = sum(map(str.isalpha, code))
    return 0 < letters < sum(map(str.isalnum, code)) > 3 and not re.match(r"(?:19|20)\d\d\b", code)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _SENTENCE.finditer(text):
        yield start, match.end()
        start = match.end()
    yield start, len(text)


_Finder = Callable[[str], Iterator[tuple[int, int]]]
_FINDERS: tuple[tuple[str, _Finder], ...] = (
    ("link", _links),
    ("email", _emails),
    ("iban", _ibans),
    ("card", _cards),
    ("ip", _ips),
    ("address", _addresses),
    ("phone", _phones),
    ("birth", _births),
    ("plate", _plates),
)
_FEWEST_DIGITS = {
    "link": 0, "email": 0, "iban": 12, "card": 12, "ip": 1, "address": 1, "phone": 6, "birth": 3,
    "plate": 1,
}  # fmt: skip
