"""Words of several languages, names of columns, and how times are written: for right_folders.py.

Nothing here is taken from jmrec: a shop's files know nothing of who reads them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

LANGUAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "en": (
        ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"),
        "red small warm leather shoe green large wooden chair blue light summer jacket black steel "
        "kitchen knife soft cotton pillow round glass lamp old garden table silver travel mug",
    ),
    "de": (
        ("utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"),
        "rote grüne große kleine Schuhe für Mädchen Stühle Tücher über Nächte Körbe Messer aus "
        "Stahl schöne Gläser Küche Bücher Gürtel weiße Blumentöpfe Mütze Lüfter Möbel Kissen Holz",
    ),
    "fr": (
        ("utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"),
        "théière élégante forêt dorée écharpe légère été hôtel crème brûlée fenêtre chaussures "
        "garçon réveil sac à dos cuir lampe verte bibliothèque vélo électrique pâté rideaux",
    ),
    "ru": (
        ("utf-8", "utf-8-sig", "utf-16", "cp1251", "koi8-r"),
        "Красный зелёный большой маленький Ботинки Стол деревянный Лампа для кухни Нож стальной "
        "Подушка мягкая Куртка летняя Чашка дорожная Кресло старое Сумка кожаная Зонт чёрный",
    ),
    "el": (
        ("utf-8", "utf-16", "cp1253"),
        "Κόκκινο παπούτσι μεγάλο τραπέζι ξύλινη καρέκλα μαύρη τσάντα δερμάτινη λάμπα για την "
        "κουζίνα μαλακό μαξιλάρι καλοκαιρινό μπουφάν ποτήρι μαχαίρι παλιό ρολόι",
    ),
    "zh": (
        ("utf-8", "utf-8-sig", "utf-16", "gb18030"),
        "红色的 皮鞋 大号 木头 椅子 蓝色 夏天 外套 黑色 不锈钢 厨房 菜刀 柔软 纯棉 枕头 "
        "圆形 玻璃 台灯 花园 桌子 旅行 水杯 儿童 书包 手机 保护壳 男士 运动 手表",
    ),
    "ja": (
        ("utf-8", "utf-8-sig", "utf-16", "cp932", "shift_jis"),
        "赤い くつ 大きな 木の 椅子 青い 夏の ジャケット 黒い ステンレス 台所の 包丁 "
        "やわらかい 綿の まくら 丸い ガラスの ランプ 古い 庭の テーブル 旅行用の "
        "カップ こどもの かばん",
    ),
    "ko": (
        ("utf-8", "utf-16", "cp949"),
        "빨간 작은 가죽 구두 초록 큰 나무 의자 파란 가벼운 여름 재킷 검은 강철 부엌 칼 "
        "부드러운 베개 둥근 유리 램프 오래된 정원 탁자 여행 컵",
    ),
}
"""Language -> encodings in which its texts are written, and words."""
SPACES = {"zh": "", "ja": ""}
"""What stands between two words, where it is no space."""

NAMES = {
    "id": "item_id id sku ArtNr product_id movieId Artikelnummer asin ItemID article_id ref",
    "item": "item_id Artikel-Nr. product item Artikel productId sku article ItemId Producto",
    "session": "session_id Session·ID SessionID session visit_id Sitzung basket_id sid visit",
    "user": "user_id User·Id userId customer_id Kundennr. visitor_id uid Cliente member_id user",
    "time": "timestamp ts datetime event_time created_at Zeitpunkt Datum fecha date Event·Time "
    "clicked_at order_date Bestelldatum time Zeitstempel when EventTime viewed_on",
    "event": "event event_type action type Aktion behavior",
    "rating": "rating stars score Bewertung",
    "order": "position step seq event_index order",
    "title": "title Product·Name name product_name Bezeichnung Titel nombre titre Título Name",
    "description": "description Beschreibung overview longDescription",
    "picture": "image img picture photo Bild foto poster image_path",
    "category": "brand colour Marke department Warengruppe season shelf",
    "number": "price Unit·Price Preis weight size_cm list_price precio height",
    "list": "tags genres materials Farben keywords",
    "from": "available_from valid_from verfuegbar_ab on_sale_from",
    "until": "available_until valid_until valid_to gueltig_bis",
    "items": "items products catalog Artikel katalog",
    "events": "interactions clicks events orders Klicks log",
}
"""Role -> names in use for its column, or for the table's file; · is a space."""
MISSING = ("NULL", "null", "NA", "N/A", "\\N", "nan", "NaN", "None", "-", "n/a", "#N/A")
"""Words for nothing that jmrec promises to know; an empty cell is the ordinary one."""

GERMAN, FRENCH, SPANISH = (
    names.split()
    for names in (
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    )
)


@dataclass(frozen=True)
class TimeForm:
    """How a moment is written.

    Attributes:
      write: Unix seconds, a multiple of ``step``, -> the cell.
      step: Seconds that it can tell apart; `MONTH` is a calendar's.
      dates: Patterns of strptime that such a cell may have, where its day may be taken for its
        month or its year.
      ascii: Whether the cell has no letter beyond ASCII.
    """

    write: Callable[[float], str]
    step: float
    dates: tuple[str, ...] = ()
    ascii: bool = True


def _at(seconds: float, hours: float = 0) -> datetime:
    return datetime.fromtimestamp(seconds, UTC) + timedelta(hours=hours)


def _by(pattern: str, hours: float = 0) -> Callable[[float], str]:
    return lambda s: _at(s, hours).strftime(pattern)


def _count(unit: float) -> Callable[[float], str]:
    return lambda s: str(round(s / unit))


def _named(form: str, months: list[str]) -> Callable[[float], str]:
    """Return a writer of ``form`` in which {d} is the day and {m} the month's name."""

    def write(seconds: float) -> str:
        t = _at(seconds)
        return t.strftime(form.replace("{d}", str(t.day)).replace("{m}", months[t.month - 1]))

    return write


def _short_hour(seconds: float) -> str:
    t = _at(seconds)
    return f"{t:%Y-%m-%d} {t.hour}:{t:%M:%S}"


def _short_all(seconds: float) -> str:
    t = _at(seconds)
    return f"{t.month}/{t.day}/{t:%Y} {t.hour}:{t:%M}"


MINUTE, HOUR, DAY, MONTH = 60.0, 3600.0, 86_400.0, 2_678_400.0
US = ("%m/%d/%Y", "%d/%m/%Y")
DASH = ("%d-%m-%Y", "%m-%d-%Y")
TIMES: dict[str, TimeForm] = {
    "iso": TimeForm(_by("%Y-%m-%dT%H:%M:%S"), 1),
    "iso space": TimeForm(_by("%Y-%m-%d %H:%M:%S"), 1),
    "iso Z": TimeForm(_by("%Y-%m-%dT%H:%M:%SZ"), 1),
    "iso ms": TimeForm(lambda s: f"{_at(s).isoformat(timespec='milliseconds')[:23]}Z", 0.125),
    "iso +02:00": TimeForm(_by("%Y-%m-%dT%H:%M:%S+02:00", 2), 1),
    "iso -0530": TimeForm(_by("%Y-%m-%d %H:%M:%S-0530", -5.5), 1),
    "iso minutes": TimeForm(_by("%Y-%m-%d %H:%M"), MINUTE),
    "iso day": TimeForm(_by("%Y-%m-%d"), DAY),
    "UTC": TimeForm(_by("%Y-%m-%d %H:%M:%S UTC"), 1),
    "CET": TimeForm(_by("%Y-%m-%d %H:%M:%S CET", 1), 1),
    "PDT": TimeForm(_by("%d.%m.%Y %H:%M:%S PDT", -7), 1),
    "short hour": TimeForm(_short_hour, 1),
    "slashes": TimeForm(_by("%Y/%m/%d %H:%M:%S"), 1),
    "us": TimeForm(_by("%m/%d/%Y %I:%M:%S %p"), 1, US),
    "us short": TimeForm(_short_all, MINUTE, US),
    "us day": TimeForm(_by("%m/%d/%Y"), DAY, US),
    "us two digits": TimeForm(_by("%m/%d/%y %H:%M"), MINUTE, ("%m/%d/%y", "%d/%m/%y", "%y/%m/%d")),
    "british": TimeForm(_by("%d/%m/%Y %H:%M:%S"), 1, US),
    "british day": TimeForm(_by("%d/%m/%Y"), DAY, US),
    "british two digits": TimeForm(
        _by("%d/%m/%y %H:%M"), MINUTE, ("%d/%m/%y", "%m/%d/%y", "%y/%m/%d")
    ),
    "dashes": TimeForm(_by("%d-%m-%Y %H:%M"), MINUTE, DASH),
    "dashes day": TimeForm(_by("%d-%m-%Y"), DAY, DASH),
    "points": TimeForm(_by("%d.%m.%Y %H:%M"), MINUTE),
    "points comma": TimeForm(_by("%d.%m.%Y, %H:%M:%S"), 1),
    "points day": TimeForm(_by("%d.%m.%Y"), DAY),
    "points two digits": TimeForm(_by("%d.%m.%y %H:%M:%S"), 1),
    "http": TimeForm(lambda s: format_datetime(_at(s), usegmt=True), 1),
    "mail": TimeForm(lambda s: format_datetime(_at(s)), 1),
    "ctime": TimeForm(lambda s: _at(s).ctime(), 1),
    "apache": TimeForm(_by("%d/%b/%Y:%H:%M:%S +0000"), 1),
    "english": TimeForm(_by("%b %d, %Y, %I:%M:%S %p"), 1),
    "english long": TimeForm(_by("%B %d, %Y %H:%M"), MINUTE),
    "english day": TimeForm(_by("%d %b %Y"), DAY),
    "oracle": TimeForm(_by("%d-%b-%y %I:%M:%S %p"), 1),
    "german": TimeForm(_named("{d}. {m} %Y %H:%M:%S Uhr", GERMAN), 1, ascii=False),
    "french": TimeForm(_named("{d} {m} %Y %H:%M", FRENCH), MINUTE, ascii=False),
    "spanish": TimeForm(_named("{d} de {m} de %Y %H:%M", SPANISH), MINUTE),
    "unix": TimeForm(_count(1), 1),
    "unix float": TimeForm(lambda s: f"{s:.1f}", 0.5),
    "unix ms": TimeForm(lambda s: str(round(s * 1000)), 0.125),
    "unix us": TimeForm(lambda s: str(round(s * 1e6)), 0.125),
    "unix ns": TimeForm(lambda s: f"{round(s)}000000000", 1),
    "compact day": TimeForm(_by("%Y%m%d"), DAY),
    "compact month": TimeForm(_by("%Y%m"), MONTH),
    "compact hour": TimeForm(_by("%Y%m%d%H"), HOUR),
    "compact minute": TimeForm(_by("%Y%m%d%H%M"), MINUTE),
    "compact": TimeForm(_by("%Y%m%d%H%M%S"), 1),
    "compact T": TimeForm(_by("%Y%m%dT%H%M%S"), 1),
    "compact Z": TimeForm(_by("%Y%m%dT%H%M%SZ"), 1),
    "excel": TimeForm(lambda s: repr(s / DAY + 25_569), 1),
    "excel day": TimeForm(lambda s: str(round(s / DAY) + 25_569), DAY),
    "days": TimeForm(_count(DAY), DAY),
    "hours": TimeForm(_count(HOUR), HOUR),
    "minutes": TimeForm(_count(MINUTE), MINUTE),
}
"""Name -> a form that jmrec promises to read."""
LATER: dict[str, Callable[[float], str]] = {
    "iso day": TIMES["iso day"].write,
    "points day": TIMES["points day"].write,
    "compact day": TIMES["compact day"].write,
    "english day": TIMES["english day"].write,
}
"""How the days of availability are written."""


def floored(seconds: float, step: float) -> float:
    """Return the last moment up to some seconds that a form tells apart."""
    if step == MONTH:
        return _at(seconds).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    return math.floor(seconds / step) * step


def readings(form: TimeForm, cells: list[str]) -> int:
    """Return in how many ways all cells can be read as a date."""
    found = set()
    for pattern in form.dates:
        try:
            dates = [datetime.strptime(cell.split(" ")[0], pattern) for cell in cells]
        except ValueError:
            continue
        found.add(tuple(dates))
    return len(found) if form.dates else 1
