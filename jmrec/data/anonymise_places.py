"""Postal addresses and names of people in a text, by the words and signs around them.

No list of people's names is used: a name is found where a title, a greeting, a farewell or "my name
is" stands before it, and else it is not.
"""

import re

_UP = r"[A-ZÀ-ÖØ-ÞŁŚŻŹĆŃÓ]"
_WORD = rf"(?:(?:St|Ste|Mt|Ft|Nr|Prof|Dr)\.|{_UP}[^\W\d_]*(?:['’-][^\W\d_]+)*)"
_LINK = (
    r"(?:an|am|an der|an dem|auf|auf der|bei|im|in|ob der|vor der|la|le|les|de|del|de la|des|du|"
    r"sur|sous|los|las|el|y|nad|pod|upon)"
)
_PLACE = rf"{_WORD}(?:[ /-](?:{_LINK}[ -])?{_WORD}){{0,4}}"
_GAP = r"(?:\s*,\s*|\s*\n\s*|\s+)"
_UK_CODE = r"(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})\b"
_ZIP = r"(?:[A-Z]{1,2}[- ])?\d{4,5}(?:-\d{4})?"
_CODE_CITY = rf"(?:{_GAP}(?:\d{{2}}-\d{{3}}|{_ZIP}){_GAP}{_PLACE})"
_CITY_CODE = rf"(?:{_GAP}{_PLACE},\s*(?:[A-Z]{{2}}\s)?\d{{5}}(?:-\d{{4}})?\b)"
_AFTER = rf"(?:{_CODE_CITY}|{_CITY_CODE})?"

_GERMAN = (
    rf"(?:{_WORD}[- ]){{0,3}}(?i:[^\W\d_]*(?:stra(?:ß|ss)e|str\.|weg|allee|platz|gasse|ring|damm|"
    rf"ufer|"
    r"chaussee|steig|pfad))"
    r"\s?\d{1,4}(?:\s?[a-z]\b)?(?:\s?[-/]\s?\d{1,4})?\b" + _AFTER
)
_NUMBER = r"\d{1,6}[A-Za-z]?"
_STREET = (
    r"(?:Street|St|Streets|Road|Rd|Roads|Avenue|Ave|Lane|Ln|Drive|Dr|Drives|Court|Ct|Courts|"
    r"Boulevard|Blvd|"
    r"Square|Sq|Place|Pl|Terrace|Close|Crescent|Highway|Hwy|Parkway|Pkwy|Way|Alley|Circle)\b\.?"
)
_FLAT = r"(?:(?:Flat|Studio|Apartment|Apt|Suite|Unit|Room|Piso|Puerta|Apt\.|#)\.?\s?\w{1,6})"
_US_END = rf"{_GAP}{_PLACE},?\s+(?:[A-Z]{{2}}|{_WORD})\s+\d{{5}}(?:-\d{{4}})?\b"
_UK_END = rf"(?:{_GAP}{_PLACE}){{0,2}},?\s+{_UK_CODE}"
_UNIT = rf"(?:,?\s{_FLAT})?"
_ENGLISH = (
    rf"{_NUMBER}\s(?:{_WORD}\s){{1,4}}?{_STREET}{_UNIT}(?:{_US_END}|{_UK_END})?"
    rf"|{_NUMBER}\s{_PLACE}{_UNIT}(?:{_US_END}|{_UK_END})"
    rf"|{_FLAT}{_GAP}(?:\d{{1,5}}\s)?{_PLACE}{_UK_END}"
    rf"|P\.?\s?O\.?\s?Box\s\d+(?:{_US_END}|{_UK_END})?"
    rf"|(?:PSC|Unit|USNS|USS|USNV|USCGC)\s[\w ]{{1,20}}(?:,?\s(?:Box|APO|FPO|"
    rf"DPO)\s\w+)?{_GAP}(?:APO|FPO|DPO)\s[A-Z]{{2}}\s\d{{5}}"
)
_SOFT = r"(?:[^\W\d_][\w'’.-]*)"
_FRENCH = (
    r"(?:\d{1,4}(?:\s?(?:bis|ter|quater))?,?\s)?\b(?:rue|boulevard|bd\.?|avenue|av\.|chemin|"
    r"allée|impasse|quai|"
    rf"place|cours|square|route|faubourg|ruelle|passage)\s(?:{_SOFT}\s){{0,5}}?{_SOFT}"
    rf"{_GAP}\d{{5}}\s{_PLACE}"
    r"|\d{1,4}(?:\s?(?:bis|ter|quater))?,?\s(?:rue|boulevard|bd\.?|avenue|av\.|chemin|allée|"
    r"impasse|quai|"
    rf"place|cours|square|route|faubourg|ruelle|passage)\s(?:(?:de|du|des|la|le|les|"
    rf"l['’])\s?){{0,2}}{_PLACE}"
)
_SPANISH = (
    r"\b(?:Calle|C/|C\.|Avenida|Avda\.?|Av\.|Plaza|Plza\.?|Paseo|Camino|Rambla|Ronda|"
    r"Urbanización|Vial|Glorieta|"
    r"Pasaje|Cuesta|Cañada|Callejón|Alameda|Acceso|V[ií]a|Carretera|Pasadizo)\s?"
    rf"(?:{_SOFT}\s){{1,6}}?(?:n[º°o]\.?\s?)?\d{{1,4}}\b(?:,?\s?(?:Piso|Puerta|Apt\.?|bajo|"
    rf"\d{{1,2}}[º°ª])\s?\w{{0,3}})*"
    rf"(?:\s*{_GAP}{_PLACE},?\s\d{{5}}\b|\s*{_CODE_CITY})?"
)
_POLISH = (
    r"\b(?:ulica|ulicy|ul\.|aleja|al\.|plac|pl\.|osiedle|os\.|rondo|skwer)\s"
    rf"(?:\d{{1,2}}\s)?(?:{_SOFT}\s(?:\d{{1,2}}\s(?={_UP}))?){{1,4}}?\d{{1,4}}[a-zA-Z]?(?:\s?/\s?\d{{1,4}})?\b{_AFTER}"
)
_FLAGS = re.IGNORECASE
ADDRESS = re.compile(
    "|".join(f"(?<![\\w-])(?:{each})" for each in (_POLISH, _FRENCH, _SPANISH, _ENGLISH, _GERMAN))
    + rf"|(?<![\w-])(?:{_UK_CODE}|\d{{2}}-\d{{3}}\s{_PLACE})"
)
"""A postal address, as it is written in Germany, Britain, the United States, France, Spain, "
"Poland."""

_PARTICLE = (
    r"(?:von der|von|van der|van|de la|de los|de|del|du|le|la|da|dos|di|zu|al|bin|ben|Mac|y)"
)
_PART = rf"{_UP}(?:\.|[^\W\d_]+(?:['’-]{_UP}[^\W\d_]+)*|['’]{_UP}[^\W\d_]+)"
_NAME = rf"{_PART}(?:\s(?:{_PARTICLE}\s)?{_PART}){{0,3}}"
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Mister|Sir|Madam|Dr|Prof|Professor|Rev|Herrn?|Frau|Fräulein|Hr|Fr|"
    r"Monsieur|Madame|"
    r"Mademoiselle|Mme|Mlle|Señora?|Señorita|Sra|Sr|Srta|Don|Doña|[Pp]ani?|[Pp]ana|[Pp]anem|"
    r"[Pp]anią|"
    r"Univ\.Prof|Dipl\.-Ing|Ing|Mag)"
)
_TITLED = rf"(?<![\w-])(?:{_TITLE}\.?\s){{1,3}}(?P<titled>{_NAME})"
_SAID = (
    r"(?:my name(?: is|'s|’s)|name:|(?:I|i)ch hei(?:ß|ss)e|mein name(?: ist|:)|je m['’]appelle|"
    r"mon nom est|"
    r"me llamo|mi nombre es|nazywam się|mam na imię|my friend|meine? (?:Freundin?|Kollegin?|"
    r"Nachbarin?)|"
    r"signed(?: by)?|sign[eé] (?:par )?|written by|review(?:ed)? by|(?:asked|ask|contact|"
    r"spoke (?:to|with)|"
    r"talked to|served by|helped by|speak (?:to|with)|thanks to|danke an|gracias a|merci à|"
    r"dzięki|dziękuję)|"
    r"yours,?|im auftrag|gezeichnet|gez\.|kundin?|verkäuferin?|mitarbeiterin?|firmado(?: por)?|"
    r"podpisan[oay])"
)
_SAID_NAME = rf"(?<!\w)(?i:{_SAID})\s*[,:]?\s+(?P<said>{_NAME})"
_GREETING = (
    r"(?:dear|hello|hallo|hi|hey|liebe[rs]?|sehr geehrter?|guten (?:tag|morgen|abend)|servus|"
    r"moin|cher|chère|"
    r"bonjour|salut|hola|querid[oa]|estimad[oa]|buenos días|cześć|witam|drog[ia]|szanown[yai])"
)
_GREETED = rf"(?<!\w)(?i:{_GREETING})\s+(?P<greeted>{_NAME})(?=\s*[,!:\n–-])"
_FAREWELL = (
    r"(?:(?:kind|best|warm)?\s?regards|(?:viele|liebe|schöne|beste|herzliche|"
    r"freundliche[nr]?)\s(?:grü(?:ß|ss)en?)|"
    r"grü(?:ß|ss)e|gru(?:ß|ss)|lg|vg|mfg|sincerely(?: yours)?|yours(?: truly| sincerely|"
    r" faithfully)?|cheers|"
    r"best wishes|love|cordialement|bien à vous|amicalement|cordialmente|saludos(?: cordiales)?|"
    r"atentamente|"
    r"un saludo|pozdrawiam|z poważaniem|pozdrowienia)"
)
_SIGNED = rf"(?<!\w)(?i:{_FAREWELL})\s*[,:\n–-]?\s*(?P<signed>{_NAME})(?=\s*(?:$|[.!\n]))"
_DASH = (
    rf"[.!?\n]\s*[-–—~]{{1,2}}\s?(?P<dash>{_PART}(?:\s(?:{_PARTICLE}\s)?{_PART}){{0,2}})\s*\.?\s*$"
)
_NAMES = re.compile("|".join([_TITLED, _SAID_NAME, _GREETED, _SIGNED, _DASH]))
_NO_PEOPLE = {
    "Martens", "Pepper", "Oetker", "Clean", "Coffee", "Muscle", "Beckmann", "Scholl", "Scholls",
    "Meyers", "Hauschka", "Strange", "Who", "Right", "Wrong", "President", "Sir", "Madam",
    "Evil", "Bean", "Potato", "Holmes", "Darcy", "Smith", "There", "The", "This", "It", "All",
    "Everyone", "God", "Team", "Customer", "Customers", "Friends", "I", "You", "We", "And",
    "But", "My", "Your", "Hollywood", "Amazon", "Santa", "America",
}  # fmt: skip
"""Words after a title or a greeting that are no names of people, or those of brands and figures."""


def tag_names(text: str) -> tuple[str, int]:
    """Put "[name]" in the place of each name of a person that words around it give away.

    Args:
      text: Any text.

    Returns:
      The text, and how many names were found. A title before a name stays.

    Example:
      >>> tag_names("Mrs. Anna de la Cruz was kind. My name is Jörg Müller-Lang.")
      ('Mrs. [name] was kind. My name is [name].', 2)
      >>> tag_names("Dr. Martens boots")
      ('Dr. Martens boots', 0)
    """
    found = 0

    def put(match: re.Match[str]) -> str:
        nonlocal found
        kind = match.lastgroup or ""
        name = match[kind]
        if re.split(r"[\s'’-]", name)[0] in _NO_PEOPLE:
            return match[0]
        found += 1
        start = match.start(kind) - match.start()
        end = "." if name.endswith(".") and len(name) > 2 and name[-3:-2] != " " else ""
        return f"{match[0][:start]}[name]{end}{match[0][start + len(name) :]}"

    return _NAMES.sub(put, text), found
