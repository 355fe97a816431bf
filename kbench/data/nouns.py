"""Gender, number and article of the names in X-FACTR's French and Spanish prompts.

The benchmark's files say who is male or female (mTRExf_gender), what a thing is an instance of, in English
(mTRExf_instanceof), and whether it is a kind of things (mTRExf_is_cate). The rest follows from the word itself: the
first word of a name by a list, else by its ending, as school grammars teach it. Such rules err now and then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entity:
    """What inflection asks of a subject or object.

    Attributes:
        name: in the language of the prompt.
        sex: male, female or none.
        kinds: English names of what it is an instance of.
        category: whether things are instances of it: a musical instrument, a profession.
    """

    name: str
    sex: str = "none"
    kinds: tuple[str, ...] = ()
    category: bool = False


@dataclass(frozen=True)
class Noun:
    """A name as grammar sees it.

    Attributes:
        gender: MASC or FEM.
        number: SG or PL.
        article: whether it takes a definite article: "la France", and not "la Paris".
        vowel: French "le" becomes "l'" before it.
        stressed: it begins with a stressed a: Spanish "el arpa", though feminine.
        place: country, inside (in it one is "dans"), or at.
    """

    gender: str
    number: str = "SG"
    article: bool = True
    vowel: bool = False
    stressed: bool = False
    place: str = "at"


# kind -> words of the names of its classes; the first kind that fits is taken
_KINDS = {
    "person": "human character saint",
    "country": "country",
    "team": "club team",
    "company": "business enterprise company corporation manufacturer conglomerate publisher airline label brand "
    "broadcaster",
    "settlement": "city town village commune comune municipality settlement capital borough suburb hamlet metropolis "
    "locality neighborhood neighbourhood township parish arrondissement seat",
    "region": "state province region county department district territory prefecture oblast canton republic continent "
    "peninsula governorate voivodeship archipelago island",
    "landform": "river mountain mountains range ocean sea lake desert volcano bay strait valley gulf glacier",
    "language": "language dialect",
    "role": "profession occupation position office rank title",
    "group": "band duo trio quartet orchestra",
    "work": "film movie album book novel game opera magazine newspaper car automobile aircraft",
    "series": "series program show song single university school church",
}
_NOT_SETTLEMENTS = ("human settlement",)
_COUNTRIES = ("sovereign state", "island nation", "nation", "historical country")
# gender of a name that says nothing itself: that of what it is, une société, un film, une série; Spanish alike
_OF_KIND = {"company": "FEM", "team": "MASC", "group": "MASC", "work": "MASC", "series": "FEM", "language": "MASC"}


def kind_of(entity: Entity) -> str:
    """What sort of thing an entity is, `name` where nothing else fits."""
    names = [name.lower() for name in entity.kinds]
    words = {word for name in names if name not in _NOT_SETTLEMENTS for word in re.findall(r"\w+", name)}
    if any(name in _NOT_SETTLEMENTS for name in names):
        words.add("settlement")
    if entity.sex in ("male", "female"):
        return "person"
    if any(name in _COUNTRIES for name in names):
        return "country"
    if "programming" in words:
        words.discard("language")
    if any(name.endswith(("musical group", "girl group", "idol group", "pop group", "rock group")) for name in names):
        words.add("band")
    return next((kind for kind, known in _KINDS.items() if words & set(known.split())), "name")


def _heads(**lists: str) -> dict[str, tuple[str, str]]:
    """first word -> gender and number."""
    return {word: (name[:-2].upper(), name[-2:].upper()) for name, words in lists.items() for word in words.split()}


# FRENCH

_FR_HEADS = _heads(
    mascsg="aéroport belize bureau cambodge caucase centre cercle championnat cimetière club collège comité comté "
    "congrès conseil conservatoire cuivre danube delaware dictionnaire district département empire festival "
    "fleuve front gange golfe grade grand groupe hindi hôpital idaho institut kent laboratoire lac lycée maine "
    "mexique ministère mont mouvement mozambique musée nord nouveau nouvel océan office orchestre ordre oscar "
    "parc parlement parti pays pont prix quartier rhône royaume service siège stade sud suriname syndicat "
    "système sénat tage temple tennessee théâtre tibre tigre titre tour tournoi traité tribunal trombone "
    "trophée violoncelle yémen zimbabwe état",
    femsg="abbaye académie alliance armée association avenue banlieue banque basse bataille bibliothèque boisson "
    "bourse caisse campagne cathédrale chambre chanson chaîne cithare clarinette coalition commission "
    "communauté compagnie confédération conférence cordillère coupe cour croix dent division eau entente "
    "faculté femme fille fin flotte flûte fondation force forêt fédération garde gare guerre guitare harpe "
    "langue leçon ligue loi lyre main maison mandoline marine mer mission montagne mort mère médaille médecine "
    "nuit organisation peau place police presse prison province rivière rue région république saison société "
    "station trompette union université vallée vielle ville voix école église équipe île",
    mascpl="états pays-bas monts jeux championnats chemins émirats cuivres claviers services",
    fempl="nations îles langues forces mathématiques percussions sciences statistiques timbales abruzzes asturies "
    "bahamas baléares canaries comores cyclades maldives philippines seychelles",
)
# countries and islands without an article: one is "à Cuba", and "en Israël"
_FR_BARE = {
    name: gender
    for gender, names in {
        "MASC": "bahreïn bornéo chypre cuba djibouti hawaï hong java kiribati macao madagascar malte maurice monaco "
        "nauru oman porto-rico saint-marin sao singapour sumatra tahiti taïwan trinité-et-tobago tuvalu vanuatu",
        "FEM": "haïti israël",
    }.items()
    for name in names.split()
}
_FR_FEMININE = re.compile(
    r"(?:tion|sion|xion|aison|(?<!com)(?<!é)té|tié|ie|ure|ade|ance|ence|anse|ense|ette|elle|esse|ise|ine|rice|euse|"
    r"aine|sse|lle|nne|tte|ière|ue|ole|ode|èse|yse|ose|rbe|ude|ase|ée|ive|oche|anche|ique|erre|une|use|nion|gion)$"
)
_FR_MASCULINE = re.compile(
    r"(?:age|isme|iste|ment|gramme|phone|scope|aire|oire|ège|ème|ome|aume|cycle|graphe|logue|istre|intre|tre|ète|ecte|"
    r"eur|ien|ier|eau|oir|musée|lycée|trophée|comté|été|côté|tourisme|exique|kiosque|cirque|moine|domaine|génie)$"
)
_FR_FEMININE_ROLE = re.compile(r"(?:trice|euse|ière|ienne|esse|sœur|femme|reine|té|tion)$")
_FR_PLURAL = re.compile(r"(?:[^èiuo]es|és|ées|ies|ons|eurs|iers|ants|ents|ques|eaux|eux)$")
_FR_OWN = re.compile(r"(?:l['’]|(?:les?|la|une?|des) )", re.IGNORECASE)
# h that French does not hear: l'histoire, and not l'Hongrie
_FR_MUTE = re.compile(
    r"h(?:ist|indo|imal|ôp|ôt|omm|um|éb|ydr|yp|armon|ell|élic|ept|exa|omé|orl|orreur|uil|aïti|iver|érit|abit|éro[ïi])"
)


def french(entity: Entity) -> Noun:
    """A French name as grammar sees it."""
    name, lower = entity.name.strip(), entity.name.strip().lower()
    kind, head = kind_of(entity), _head(lower)
    vowel = bool(re.match(r"[aeiouàâäéèêëîïôöûùœæ]|y[^aeiouéo]", lower)) or bool(_FR_MUTE.match(lower))
    vowel = vowel and not re.match(r"(?:onz|oui|yonne|uhlan|ya|yé|yo)", lower)
    own = bool(_FR_OWN.match(lower))
    if kind == "person":
        return Noun("FEM" if entity.sex == "female" else "MASC", article=False, vowel=vowel)
    common = name[:1].islower() or (entity.category and kind not in ("settlement", "company", "team", "group"))
    if kind in ("country", "region"):
        bare = _FR_BARE.get(lower.replace(" ", "-")) or _FR_BARE.get(head)
        if bare:
            return Noun(bare, article=False, vowel=vowel, place="country")
        gender, number = _FR_HEADS.get(head) or (("FEM" if head.endswith("e") else "MASC"), "SG")
        gender, number = _FR_HEADS.get(lower, (gender, number))
        if lower.endswith((" county", " district", " province")):  # an English name
            gender, own = "MASC", True
        place = "inside" if kind == "region" and name[:1].islower() else "country"
        return Noun(gender, number, not own, vowel, place=place)
    if kind == "settlement" and not name[:1].islower():
        return Noun("FEM" if head.endswith("e") else "MASC", article=False, vowel=vowel)
    place = "inside" if kind == "landform" else "at"
    if head in _FR_HEADS and kind not in ("work", "group", "company", "team"):
        gender, number = _FR_HEADS[head]
        return Noun(gender, number, not own, vowel, place=place)
    if kind == "role":
        number = "PL" if common and _FR_PLURAL.search(head) else "SG"
        return Noun("FEM" if _FR_FEMININE_ROLE.search(head) else "MASC", number, not own, vowel)
    if kind in ("language", "landform") or common:
        number = "PL" if common and kind != "language" and _FR_PLURAL.search(head) else "SG"
        gender = "MASC" if kind == "language" else _fr_gender(head)
        if kind == "landform" and not common:  # la Loire, le Rhin
            gender = "FEM" if head.endswith("e") else "MASC"
        return Noun(gender, number, not own, vowel, place=place)
    return Noun(_OF_KIND.get(kind) or _fr_gender(head), article=False, vowel=vowel)


def _fr_gender(head: str) -> str:
    """Gender of a common noun by its ending."""
    one = _singular(head)
    if _FR_MASCULINE.search(one):
        return "MASC"
    return "FEM" if _FR_FEMININE.search(one) else "MASC"


def _singular(head: str) -> str:
    return head[:-1] if _FR_PLURAL.search(head) else head


# SPANISH

_ES_HEADS = _heads(
    mascsg="planeta mapa día poeta atleta cura clima idioma sistema tema problema programa drama poema dilema teorema "
    "diploma premio óscar oscar globo balón lema panorama cometa tranvía gorila",
    femsg="mano radio foto moto orden cruz voz luz paz red ley clase torre noche calle sede serie base llave parte "
    "actriz emperatriz matriz raíz imagen virgen flor miel sal señal catedral capital legión región unión "
    "religión nación estación asociación canción percusión batería",
)  # fmt: skip
_ES_FEMININE = re.compile(r"(?:[^m]a|[^eo]ma|ción|sión|gión|dad|tad|tud|umbre|ez|itis|sis)$")
_ES_ROLE_MASCULINE = re.compile(r"(?:ista|eta|ota|auta|arca|iatra|ida|cida|crata|sta|grafa|guía)$")
_ES_PLURAL = re.compile(r"\w{2}[aeo]s$")
_ES_SINGULAR = (
    "atlas",
    "dios",
    "lunes",
    "martes",
    "cosmos",
    "virus",
    "paraguas",
    "andrés",
    "inglés",
    "francés",
    "pinchadiscos",
)
_ES_OWN = re.compile(r"(?:el|la|los|las) ", re.IGNORECASE)
_ES_STRESSED = re.compile(r"h?á|(?:agua|alma|arma|arpa|área|aula|acta|ancla|ala|hacha|hambre|habla)\b")


def spanish(entity: Entity) -> Noun:
    """A Spanish name as grammar sees it; every name may take an article, as in the benchmark."""
    name, lower = entity.name.strip(), entity.name.strip().lower()
    kind, own = kind_of(entity), _ES_OWN.match(lower)
    if kind == "person":
        return Noun("FEM" if entity.sex == "female" else "MASC")
    if own:
        article = own[0].strip()
        gender, number = "FEM" if article in ("la", "las") else "MASC", "PL" if article in ("los", "las") else "SG"
        return Noun(gender, "PL" if kind == "group" else number, article=False)
    common = name[:1].islower() or entity.category
    if kind == "group" and not common:
        return Noun("MASC", "PL")
    head = _head(lower)
    stressed = bool(_ES_STRESSED.match(lower))
    if kind in _OF_KIND and kind != "language" and not common and head not in _ES_HEADS:
        return Noun(_OF_KIND[kind], stressed=stressed)
    number = "PL" if common and _ES_PLURAL.search(head) and head not in _ES_SINGULAR else "SG"
    return Noun(_es_gender(head, kind == "role"), number, stressed=stressed)


def _es_gender(head: str, role: bool) -> str:
    """Gender by a list, else by the ending, that of a plural without its s."""
    if head in _ES_HEADS:
        return _ES_HEADS[head][0]
    if role and _ES_ROLE_MASCULINE.search(head):
        return "MASC"
    one = head[:-1] if re.search(r"[ao]s$", head) and head not in _ES_SINGULAR else head
    return "FEM" if _ES_FEMININE.search(one) else "MASC"


def _head(lower: str) -> str:
    """The first word of a name: of "états-unis" "états", of "croix-rouge" "croix"."""
    bare = re.sub(r"^(?:\W+|(?:micro|macro|auto|socio|neuro|bio|ex|vice)-)+", "", lower)
    return re.split(r"[ \-'’(,]", bare, maxsplit=1)[0]
