"""Gender, number and article of the names in X-FACTR's French and Spanish prompts.

The benchmark's files say who is male or female (mTRExf_gender), what a thing is an instance of, in English
(mTRExf_instanceof), and whether it is a kind of things (mTRExf_is_cate). The rest follows from the first word of a
name: the rules of endings that school grammars teach, and lists of words that break them. They err now and then.
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


def _words(**lists: str) -> dict[str, str]:
    """Each word or ending -> the name of the list it stands in."""
    return {word: name for name, words in lists.items() for word in words.split()}


def _by_ending(word: str, endings: dict[str, str]) -> str | None:
    """What the longest of the endings that a word has says; None where it has none of them."""
    return next((endings[word[start:]] for start in range(len(word)) if word[start:] in endings), None)


# FRENCH

# the longest ending decides; a word with none of them is feminine in e, else masculine
_FR_ENDINGS = _words(
    MASC="age aire aume bre cide cle dre drome fice fre ge gle gramme graphe gène isme logue me mètre naute "
    "oïde phone phore ple scope sque ste taire tère toire tre vre xe ège ème",
    FEM="gion ison nion rge sion tion tié té xion",
)
# words of which that is not true, or that end as plurals do
_FR_WORDS = _words(
    MASC="acte arrière beurre chaos cimetière cirque clade code comité comté conte contre crâne culte cyclone "
    "côté diabète dialecte diocèse domaine empire espace exode fiddle fleuve foie folklore genre globe "
    "globule golfe grade groupe guide génie hémisphère héros incendie insecte kiosque lexique lycée "
    "magazine manche massacre mausolée missile modèle moine monde moustique musée narcotique navire orgue "
    "organe os pacte patrimoine peigne phare phénomène plastique polymère poste prince principe prophète "
    "pâté règne rêve rite satellite scandale service siège signe silence site squelette stade commerce "
    "synode texte traité trombone trophée trouble tube type vampire verbe verre violoncelle été",
    FEM="affaire aire algèbre arme boisson boucle cage chair chaire chaleur chambre chanson clé cour couleur "
    "croix dent douleur eau enzyme erreur faim façon femme fenêtre ferme fin firme flamme fleur foi force "
    "forme forêt fourmi gamme grammaire guerre hauteur histoire horloge huître image leçon lettre liste "
    "loi longueur main mer mort moisson montre mousson mémoire nef neige nuit œuvre ombre page paire paix "
    "part peau peur piste plage plume poudre profondeur rame rançon rencontre règle soif sœur tige tribu "
    "valeur vapeur vertu victoire vis voix âme",
)
# what ends so in s or x is no plural
_FR_SINGULAR = ("ais", "as", "ays", "emps", "ils", "is", "ois", "oix", "ours", "ps", "rix", "us", "ès")
_FR_PLURALS_IN_X = ("aux", "eux", "oux")
# what names of bodies, places, events and prizes begin with: such a name has an article, la Ligue des champions
_FR_TITLES = tuple(
    _words(
        titles="abbaye académie accord agence alliance archipel armée arrondissement assemblée association autorité "
        "avenue aéroport baie banlieue banque basilique basse bassin bataille bibliothèque bourse bureau "
        "campagne canal cap cathédrale centre cercle chambre championnat chapelle château chaîne chemin "
        "cimetière club coalition collège comité commission communauté commune compagnie comté confédération "
        "conférence congrès conseil conservatoire cordillère coupe cour couronne croix côte diète diocèse "
        "directoire district division désert détroit département empire entente est expédition faculté "
        "festival fleuve flotte fondation force forêt front fédération garde gare golfe gouvernement grand "
        "grande groupe guerre haut haute hôpital hôtel institut jeu laboratoire lac langue ligue loi lycée "
        "maison marine massif mer ministère mission monastère mont montagne mouvement musée médaille métro "
        "nation nord nouveau nouvel nouvelle observatoire océan office opération orchestre ordre organisation "
        "oscar ouest palais parc parlement parti pays pont port premier première prison prix province "
        "préfecture péninsule quartier rivière royaume rue région république réserve saison science seconde "
        "service siège société stade station sud supercoupe syndicat sénat temple terre territoire théâtre "
        "tour tournoi traité tribunal troisième trophée tunnel union université vallée ville volcan école "
        "église émirat équipe état île"
    )
)
# places that end in e and are masculine, or do not and are feminine
_FR_PLACES = _words(
    MASC="belize cambodge caucase connecticut danube delaware dniestr gange kamtchatka maine mexique "
    "mozambique péloponnèse rhône suriname tage tennessee tibre tigre transvaal zambèze zimbabwe",
    FEM="neva saskatchewan sava vltava volga",
)
_FR_PLURAL_PLACES = _words(
    MASC="balkans pays-bas samoa tonga",
    FEM="abruzzes alpes antilles ardennes asturies açores bahamas baléares bermudes canaries caraïbes comores "
    "cyclades fidji hébrides indes maldives malouines mariannes philippines pouilles pyrénées rocheuses "
    "seychelles vosges",
)
# countries and islands without an article: one is "à Cuba", and "en Israël"
_FR_BARE = _words(
    MASC="bahreïn bali bornéo chypre cuba djibouti gibraltar guam guernesey hawaï hong-kong java jersey "
    "kiribati macao madagascar malte maurice mayotte monaco nauru niue oman porto-rico saint-marin "
    "singapour sumatra tahiti taïwan trinité-et-tobago tuvalu vanuatu zanzibar",
    FEM="haïti israël terre-neuve",
)
_FR_FEMININE_ROLES = ("esse", "euse", "ienne", "ine", "ière", "tion", "trice", "té")
_FR_ARTICLES = _words(MASC="le un", FEM="la une")
_FR_OWN = re.compile(r"(?:l['’]|(?:les?|la|une?|des) )", re.IGNORECASE)
# the h of common nouns is mute, but in words that begin like these; that of names is heard, but in the following ones
_FR_ASPIRATED = tuple(
    _words(
        heard="hac hai hal ham han hard hareng haricot harnais harpe hasard haut havre heavy herse heurt hibou hidj "
        "hindi hip hit hiérarch hobby hockey holl homard hongr honte hors hot hou hublot huit huppe hurl "
        "hutte hérisson héron héros"
    )
)
_FR_MUTE = tuple(
    _words(
        mute="haïti hawaï henri hercule hermès hespérides hexa himalaya hippo histoi homo homère honor horace "
        "hubert hugues human hydro hyper hypo hélène héma hérault hérod hétéro hôpital hôtel"
    )
)


def french(entity: Entity) -> Noun:
    """A French name as grammar sees it."""
    name = entity.name.strip()
    lower, small = name.lower(), name[:1].islower()
    kind, head = kind_of(entity), _head(lower)
    vowel, article = _fr_vowel(lower, head, small), not _FR_OWN.match(lower)
    if kind == "person":
        return Noun("FEM" if entity.sex == "female" else "MASC", article=False, vowel=vowel)
    if kind in ("country", "region") or (kind == "name" and (head in _FR_PLURAL_PLACES or head in _FR_PLACES)):
        return _fr_place(lower, head, small and kind == "region", article, vowel)
    if kind == "settlement" and not small:
        return Noun(_fr_by_e(head), article=False, vowel=vowel)
    place = "inside" if kind == "landform" else "at"
    common = small or (entity.category and kind not in ("settlement", "company", "team", "group"))
    if kind == "language" and not head.startswith(("langue", "math")):
        return Noun("MASC", "SG", article, vowel)
    if kind == "role":
        feminine = head.endswith(_FR_FEMININE_ROLES) or _FR_WORDS.get(head) == "FEM"
        gender = "FEM" if feminine else "MASC"
        return Noun(gender, _fr_number(head) if common else "SG", article, vowel)
    if common or (_fr_titled(head) and kind not in ("work", "group", "company", "team")):
        return Noun(_fr_gender(head), _fr_number(head), article, vowel, place=place)
    if kind == "landform":  # la Loire, le Rhin
        number = "PL" if head in _FR_PLURAL_PLACES else "SG"
        return Noun(_fr_place_gender(head), number, article, vowel, place=place)
    gender = _OF_KIND.get(kind) or _FR_ARTICLES.get(head) or _fr_gender(head)
    return Noun(gender, article=False, vowel=vowel)


def _fr_place(lower: str, head: str, inside: bool, article: bool, vowel: bool) -> Noun:
    """A country or region; `inside` of one in whose name the word for it is a common noun: le comté de Kent."""
    whole = lower.replace(" ", "-")
    for name in (whole, head):
        if name in _FR_BARE:
            return Noun(_FR_BARE[name], article=False, vowel=vowel, place="country")
        if name in _FR_PLURAL_PLACES:
            return Noun(_FR_PLURAL_PLACES[name], "PL", article, vowel, place="country")
    place = "inside" if inside else "country"
    if lower.endswith((" county", " district", " province")):  # an English name
        return Noun("MASC", article=False, vowel=vowel, place=place)
    if _fr_titled(head):
        return Noun(_fr_gender(head), _fr_number(head), article, vowel, place=place)
    return Noun(_fr_place_gender(head), "SG", article, vowel, place=place)


def _fr_place_gender(head: str) -> str:
    return _FR_PLACES.get(head) or ("MASC" if head.endswith("shire") else _fr_by_e(head))


def _fr_by_e(head: str) -> str:
    return "FEM" if head.endswith(("e", "es")) else "MASC"


def _fr_titled(head: str) -> bool:
    return head in _FR_TITLES or (_fr_number(head) == "PL" and head[:-1] in _FR_TITLES)


def _fr_gender(head: str) -> str:
    """Gender of a common noun, that of a plural by its singular."""
    one = head[:-1] if _fr_number(head) == "PL" else head
    return _FR_WORDS.get(one) or _by_ending(one, _FR_ENDINGS) or _fr_by_e(one)


def _fr_number(head: str) -> str:
    """Number of a common noun."""
    if head in _FR_WORDS:
        return "SG"
    plural = head.endswith(_FR_PLURALS_IN_X) or (head.endswith("s") and not head.endswith(_FR_SINGULAR))
    return "PL" if plural else "SG"


def _fr_vowel(lower: str, head: str, small: bool) -> bool:
    """Whether "le" becomes "l'": before a vowel that is heard first, but "le onze", "le oui", "le yaourt"."""
    if lower.startswith("h"):
        return not head.startswith(_FR_ASPIRATED) if small else head.startswith(_FR_MUTE)
    if lower.startswith(("onz", "oui", "uhlan")):
        return False
    if lower.startswith("y"):
        return head == "yonne" or lower[1:2] not in "aeiouéèê"
    return lower[:1] in "aeiouàâäéèêëîïôöûùœæ"


# SPANISH

# the longest ending decides; a word with none of them is feminine in a, else masculine
_ES_ENDINGS = _words(
    MASC="ama asma ema eta igma isma oma",
    FEM="cie ción dad ez gión itis nión rie sis sión tad triz tud umbre",
)
_ES_WORDS = _words(
    MASC="ajedrez análisis clima cometa cura día espía génesis gorila guardia guía juez mapa oasis paréntesis "
    "pez planeta tranvía yoga énfasis",
    FEM="base bicicleta broma calle cama camiseta capital carne carta catedral central clase clave corneta "
    "corriente cruz cárcel dama etiqueta flor foto frase fuente fe gaceta gente goma historieta imagen "
    "labor legión leche ley libreta llama llave luz mano mente meseta meta miel moto muerte mujer nariz "
    "nave nieve noche nube ocasión opereta opinión orden paloma pared parte paz piel radio rama razón "
    "raíz rebelión receta red sal salud sangre sed sede señal serpiente suerte tarde torre trama trompeta "
    "vez vid virgen voz",
)
# people of both sexes are called so
_ES_ROLES = ("ista", "asta", "eta", "ota", "auta", "cida", "cola", "atra", "arca", "crata", "cura", "guía", "policía")
# what ends in s and is no plural, beside what ends in -is, -us or a stressed vowel and s
_ES_SINGULAR = ("atlas", "caos", "cosmos", "dios", "lunes", "martes", "miércoles", "jueves", "viernes")
_ES_COMPOUNDS = re.compile(r"(?:cuenta|guarda|lanza|para|pincha|porta|rasca|saca|salva)\w{3,}s$")
_ES_OWN = re.compile(r"(el|la|los|las) ", re.IGNORECASE)
# feminine nouns that begin with a stressed a: el agua
_ES_STRESSED = tuple(
    _words(
        stressed="acta agua ala alba alga alma alza ama anca ancla arca area arma arpa asa asma aspa aula ave aya "
        "habla hacha hada hambre haya águila álgebra ánfora ánima área áreas"
    )
)


def spanish(entity: Entity) -> Noun:
    """A Spanish name as grammar sees it; every name may take an article, as in the benchmark."""
    name = entity.name.strip()
    kind, own, head = kind_of(entity), _ES_OWN.match(name), _head(name.lower())
    if kind == "person":
        return Noun("FEM" if entity.sex == "female" else "MASC")
    if own:
        article = own[1].lower()
        number = "PL" if article.endswith("s") or kind == "group" else "SG"
        return Noun("FEM" if article.startswith("la") else "MASC", number, article=False)
    common = name[:1].islower() or entity.category
    if kind == "group" and not common:
        return Noun("MASC", "PL")
    stressed = head in _ES_STRESSED
    if kind in _OF_KIND and kind != "language" and not common and head not in _ES_WORDS:
        return Noun(_OF_KIND[kind], stressed=stressed)
    number = "PL" if common and _es_plural(head) else "SG"
    return Noun(_es_gender(head, kind == "role"), number, stressed=stressed)


def _es_gender(head: str, role: bool) -> str:
    """Gender of a noun, that of a plural by its singular."""
    if role and head.endswith(_ES_ROLES):
        return "MASC"
    one = head
    if _es_plural(head):  # canciones, ciudades; guitarras
        one = re.sub(r"(?<=[dlnrz])es$|s$", "", head).replace("cion", "ción")
    return _ES_WORDS.get(one) or _by_ending(one, _ES_ENDINGS) or ("FEM" if one.endswith("a") else "MASC")


def _es_plural(head: str) -> bool:
    return bool(re.search(r"\w{2}[aeo]s$", head)) and head not in _ES_SINGULAR and not _ES_COMPOUNDS.search(head)


def _head(lower: str) -> str:
    """The first word of a name, without its first part where that is no word: of "états-unis" "états"."""
    bare = re.sub(r"^(?:\W+|(?:anti|auto|bio|contre|ex|macro|micro|mini|neuro|socio|sous|sub|vice)-)+", "", lower)
    return re.split(r"[\s\-'’(,]", bare, maxsplit=1)[0]
