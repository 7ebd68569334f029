"""Details of people that Faker draws, put into sentences as reviews have them."""

from collections.abc import Iterator

from faker import Faker

LOCALES = {"de": "de_DE", "en": "en_US", "gb": "en_GB", "fr": "fr_FR", "es": "es_ES", "pl": "pl_PL"}
FRAMES = {
    "de": ("Gutes Produkt, nur zu klein. {} Würde ich wieder kaufen.", "{} Sonst alles bestens!"),
    "en": ("Nice fabric, runs small. {} Would buy again.", "{} Otherwise a great lamp!"),
    "gb": ("Arrived late but works. {} Recommended.", "{} Still, five stars."),
    "fr": ("Très bon produit, un peu petit. {} Je recommande.", "{} Sinon tout est parfait !"),
    "es": ("Buen producto, algo pequeño. {} Lo recomiendo.", "{} Por lo demás, perfecto."),
    "pl": ("Dobry produkt, trochę za mały. {} Polecam.", "{} Poza tym wszystko super!"),
}
SAYS = {
    "email": {
        "de": ("Schreibt mir an {}, bitte.", "Meine Mail: {}"),
        "en": ("Write to {} for details.", "Contact {}"),
        "fr": ("Écrivez à {} pour en parler.",),
        "es": ("Mi correo es {}, gracias.",),
        "pl": ("Mój adres to {}, proszę pisać.",),
    },
    "phone": {
        "de": ("Ruft mich unter {} an.", "Bei Fragen: {}."),
        "en": ("Call me at {} any time.", "The driver gave me {} for questions."),
        "fr": ("Mon numéro est le {}.", "Vous pouvez essayer le {}."),
        "es": ("Mi teléfono es {}.", "Contacto: {}."),
        "pl": ("Proszę dzwonić: {}.", "Kontakt {}."),
    },
    "address": {
        "de": ("Geliefert wurde nach {}.", "Ich wohne in {}."),
        "en": ("It was sent to {} by mistake.", "I live at {}."),
        "fr": ("Livré au {}.", "J'habite {}."),
        "es": ("Enviado a {}.", "Vivo en {}."),
        "pl": ("Wysłano na {}.", "Mieszkam: {}."),
    },
    "card": {
        "de": ("Bezahlt mit {}.",),
        "en": ("They charged {} twice.",),
        "fr": ("Payé avec {}.",),
        "es": ("Pagué con {}.",),
        "pl": ("Zapłaciłem kartą {}.",),
    },
    "iban": {
        "de": ("Bitte an {} erstatten.",),
        "en": ("Refund to {} please.",),
        "fr": ("Remboursez sur {}.",),
        "es": ("Devolver a {}.",),
        "pl": ("Zwrot na {}.",),
    },
    "birth": {
        "de": ("Ich bin am {} geboren.", "Geburtsdatum {}."),
        "en": ("I was born on {}.", "My date of birth is {}."),
        "fr": ("Je suis né le {}.", "Date de naissance : {}."),
        "es": ("Nací el {}.", "Fecha de nacimiento: {}."),
        "pl": ("Urodziłem się {}.", "Data urodzenia: {}."),
    },
    "ip": {
        "de": ("Mein Router hat {}.",),
        "en": ("The camera answers at {}.",),
        "fr": ("L'adresse est {}.",),
        "es": ("La dirección es {}.",),
        "pl": ("Adres to {}.",),
    },
    "plate": {
        "de": ("Mein Kennzeichen ist {}.", "Der Fahrer im Auto {} war nett."),
        "en": ("The van with the plate {} blocked us.", "My car is {}."),
        "fr": ("Ma plaque est {}.", "La voiture {} était mal garée."),
        "es": ("Mi matrícula es {}.", "El coche {} bloqueaba."),
        "pl": ("Numer rejestracyjny {}.", "Samochód {} blokował."),
    },
    "link": {
        "de": ("Bilder unter {}.",),
        "en": ("See {} for pictures.",),
        "fr": ("Photos sur {}.",),
        "es": ("Fotos en {}.",),
        "pl": ("Zdjęcia: {}.",),
    },
    "name": {
        "de": ("Mein Name ist {}.", "{} war sehr freundlich.", "Viele Grüße, {}.", "Danke an {}."),
        "en": ("My name is {}.", "{} was very helpful.", "Regards, {}.", "I spoke to {}."),
        "fr": ("Je m'appelle {}.", "{} a été très aimable.", "Cordialement, {}.", "Merci à {}."),
        "es": ("Me llamo {}.", "{} fue muy amable.", "Saludos, {}.", "Gracias a {}."),
        "pl": ("Nazywam się {}.", "{} był bardzo miły.", "Pozdrawiam, {}.", "Dziękuję, {}."),
    },
}
"""Kind -> locale -> sentences with a place for the detail."""


def planted(each: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, detail, text), ``each`` of every kind, locales, frames and forms in turn."""
    fakers = {name: Faker(locale) for name, locale in LOCALES.items()}
    for kind, says in SAYS.items():
        for n in range(each):
            name = list(LOCALES)[n % len(LOCALES)]
            faker = fakers[name]
            faker.seed_instance(f"{seed} {kind} {n}")
            detail = _detail(faker, kind, n)
            turn = n // len(LOCALES)
            sentences = says["en" if name == "gb" else name]
            frame = FRAMES[name][turn % 2]
            yield kind, detail, frame.format(sentences[turn // 2 % len(sentences)].format(detail))


def _detail(faker: Faker, kind: str, n: int) -> str:
    form = faker.random_int(0, 3)
    if kind == "email":
        return str(faker.email())
    if kind == "phone":
        return str(faker.phone_number())
    if kind == "address":
        return str(faker.address()).replace("\n", (", ", "\n", " ")[form % 3]).strip()
    if kind == "card":
        number = str(faker.credit_card_number())
        step = (" ", "-", "", "")[form]
        return step.join(number[i : i + 4] for i in range(0, len(number), 4))
    if kind == "iban":
        iban = str(faker.iban())
        return " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) if form % 2 else iban
    if kind == "birth":
        pattern = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%-d %B %Y")[form]
        return str(faker.date_of_birth(minimum_age=12).strftime(pattern))
    if kind == "ip":
        return str(faker.ipv6() if form == 3 else faker.ipv4())
    if kind == "plate":
        return str(faker.license_plate())
    if kind == "link":
        user = faker.user_name()
        forms = (
            "https://www.instagram.com/{}",
            "https://{1}/users/{0}",
            "{1}/@{0}",
            "http://{1}/profile?user={0}",
        )
        return forms[form].format(user, faker.domain_name())
    return str(faker.name())
