"""X-FACTR's prompts with a fact filled in: marks for articles, prepositions and agreement become words.

A prompt is a sentence with [X] for the subject and [Y] for the object. The columns es and fr hold marks beside them,
and these are all that occur there (S is X or Y):

[ARTDEF;S] [DEF;S]              definite article                           fr, es
[ARTIND;S] [ART;S-Gender]       indefinite article                         fr, es
[PREPDEF;S] [PREPDEF-à;S]       "de" or "à" with the definite article      fr
[PREPLOC;S]                     "à", "en", "au": the place                 fr
[né;X-Gender=MASC|née;X-Gender=FEM], likewise X-Number=SG|PL and Y-Gender: one of the words

What a mark becomes depends on gender, number and first letter of the name, and on whether it takes an article; that is
settled in kbench/data/nouns.py. The object is the gold one, as in the benchmark, though the model sees masks for it.
The released script takes every name but a country's for one without article, never contracts and elides on the name
that stands in the prompt, which for the object are masks; kbench follows the languages' grammar instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kbench.data.nouns import Entity, Noun, french, spanish
from kbench.errors import DataError, Problem

# raised when other sentences come out
VERSION = 1
SUBJECT, OBJECT = "[X]", "[Y]"
_MARK = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"(ARTDEF|ARTIND|PREPDEF|PREPDEF-à|PREPLOC|DEF);([XY])|(ART);([XY])-Gender")
_OPTION = re.compile(r"([^;|]+);([XY])-(Gender=MASC|Gender=FEM|Number=SG|Number=PL)")
_FORMS = {"fr": ("ARTDEF", "ARTIND", "PREPDEF", "PREPDEF-à", "PREPLOC"), "es": ("DEF", "ART")}
_NOUNS = {"fr": french, "es": spanish}
# (language, relation) -> words of the released file that are no sentence with the marks behind them, and what stands
# for them: "est un une ville", "est en à Paris", "est citoyen la France", "El dueña"
REPAIRS = {
    ("fr", "P31"): ("est un [ARTIND;Y]", "est [ARTIND;Y]"),
    ("fr", "P159"): ("est en [PREPLOC;Y]", "est [PREPLOC;Y]"),
    ("fr", "P27"): ("citoyen [ARTDEF;Y]", "citoyen [PREPDEF;Y]"),
    ("es", "P127"): (
        "El [dueño;Y-Gender=MASC|dueña;Y-Gender=FEM]",
        "[El dueño;Y-Gender=MASC|La dueña;Y-Gender=FEM]",
    ),
}
# a word of the prompt and an article that melt into one
_MELTED = {
    "fr": {"de le ": "du ", "de les ": "des ", "à le ": "au ", "à les ": "aux "},
    "es": {"de el ": "del ", "a el ": "al "},
}


@dataclass(frozen=True)
class _Mark:
    """A mark: an article or preposition (`form`), or words to choose from (`options`, value -> word)."""

    slot: str
    form: str = ""
    options: tuple[tuple[str, str], ...] = ()


class Prompt:
    """A prompt of one relation in one language.

    Args:
        template: as it stands in the file.
        language: its column.
        relation: its id.
        where: file and line.

    Raises:
        DataError: it lacks [X] or [Y], or a mark cannot be resolved in the language.
    """

    def __init__(self, template: str, language: str, relation: str, where: str):
        self.language = language
        self._where = f"{where}, relation {relation}, language {language}"
        old, new = REPAIRS.get((language, relation), ("", ""))
        template = re.sub(" {2,}", " ", template.replace(old, new) if old else template).strip()
        for slot in (SUBJECT, OBJECT):
            if template.count(slot) != 1:
                what = f"has {slot} {template.count(slot)} times: {template!r}"
                raise DataError(Problem(self._where, what, "a prompt holds [X] and [Y] once each"))
        self._parts: list[str | _Mark] = []
        end = 0
        for found in _MARK.finditer(template):
            self._parts.append(template[end : found.start()])
            self._parts.append(found[0] if found[0] in (SUBJECT, OBJECT) else self._mark(found[1]))
            end = found.end()
        self._parts = [part for part in [*self._parts, template[end:]] if part != ""]

    def _mark(self, spelt: str) -> _Mark:
        """A mark that the language's rules resolve for every noun."""
        forms = _FORMS.get(self.language, ())
        article = _ARTICLE.fullmatch(spelt)
        if article and (article[1] or article[3]) in forms:
            return _Mark(article[2] or article[4], article[1] or article[3])
        options = [_OPTION.fullmatch(option) for option in spelt.split("|")]
        named = {option[3]: option[1].strip() for option in options if option}
        slots = {option[2] for option in options if option}
        complete = {"Gender=MASC", "Gender=FEM"} <= set(named) or {"Number=SG", "Number=PL"} <= set(named)
        if forms and None not in options and len(slots) == 1 and len(named) == len(options) and complete:
            return _Mark(slots.pop(), options=tuple(named.items()))
        known = [f"[{form};Y{'-Gender' * (form == 'ART')}]" for form in forms]
        hint = f"known: {', '.join(known)}, [word;X-Gender=MASC|word;X-Gender=FEM], the same of Number=SG and PL"
        hint = hint if forms else "kbench inflects es and fr; take a language whose prompts hold only [X] and [Y]"
        raise DataError(Problem(self._where, f"the mark [{spelt}] cannot be resolved", hint))

    def fill(self, subject: Entity, gold: Entity) -> str:
        """The sentence with the subject's name and every mark resolved; the object stays [Y].

        Raises:
            DataError: the subject's name holds [Y].
        """
        if OBJECT in subject.name:
            raise DataError(Problem(self._where, f"the subject {subject.name!r} holds {OBJECT}", "rename it"))
        if self.language not in _NOUNS:
            return "".join(str(part) for part in self._parts).replace(SUBJECT, subject.name)
        nouns = {slot: _NOUNS[self.language](entity) for slot, entity in (("X", subject), ("Y", gold))}
        text, spaced = "", True
        for part in self._parts:
            if isinstance(part, _Mark):
                noun = nouns[part.slot]
                if part.options:
                    text, spaced = text + _chosen(part.options, noun), True
                else:
                    text, spaced = self._joined(text, _article(part.form, noun)), False
            elif part in (SUBJECT, OBJECT):
                if self.language == "fr" and nouns[part[1]].vowel and re.search(r"\b[Dd]e $", text):
                    text = f"{text[:-2]}'"
                text, spaced = text + (subject.name if part == SUBJECT else OBJECT), True
            else:
                # an article brings its own space, or none
                text, spaced = text + (part if spaced else part.removeprefix(" ")), True
        return text

    def _joined(self, text: str, article: str) -> str:
        """A sentence as far as it goes, with an article behind it, melted with the word before; first letter large."""
        if not text:
            return article[:1].upper() + article[1:]
        for apart, melted in _MELTED[self.language].items():
            word = apart.split(" ")[0]
            if apart == f"{word} {article}" and re.search(rf"\b{word} $", text):
                return text[: -len(word) - 1] + melted
        return text + article


def _chosen(options: tuple[tuple[str, str], ...], noun: Noun) -> str:
    """The word for a noun: that of its number where there is one, else that of its gender."""
    named = dict(options)
    return named.get(f"Number={noun.number}") or named[f"Gender={noun.gender}"]


def _article(form: str, noun: Noun) -> str:
    """An article or preposition with the space behind it; an apostrophe has none."""
    if form in ("DEF", "ART"):
        if form == "DEF" and not noun.article:
            return ""
        words = {"DEF": ("el", "la", "los", "las"), "ART": ("un", "una", "unos", "unas")}[form]
        feminine = noun.gender == "FEM" and not (noun.stressed and noun.number == "SG")
        return words[feminine + 2 * (noun.number == "PL")] + " "
    if form == "ARTIND":
        return {"PL": "des ", "SG": "une " if noun.gender == "FEM" else "un "}[noun.number]
    if form == "PREPLOC":
        return _place(noun)
    if not noun.article:
        return {"ARTDEF": "", "PREPDEF": "d'" if noun.vowel else "de ", "PREPDEF-à": "à "}[form]
    shape = "PL" if noun.number == "PL" else "vowel" if noun.vowel else noun.gender
    return {
        "ARTDEF": {"PL": "les ", "vowel": "l'", "FEM": "la ", "MASC": "le "},
        "PREPDEF": {"PL": "des ", "vowel": "de l'", "FEM": "de la ", "MASC": "du "},
        "PREPDEF-à": {"PL": "aux ", "vowel": "à l'", "FEM": "à la ", "MASC": "au "},
    }[form][shape]


def _place(noun: Noun) -> str:
    """Where something is, in French: en France, au Japon, aux Pays-Bas, à Paris, dans le comté, au musée."""
    if noun.place == "country":
        if not noun.article:
            return "en " if noun.gender == "FEM" else "à "
        if noun.number == "PL":
            return "aux "
        return "en " if noun.gender == "FEM" or noun.vowel else "au "
    if noun.place == "inside" and noun.article:
        return "dans " + _article("ARTDEF", noun)
    return _article("PREPDEF-à", noun)
