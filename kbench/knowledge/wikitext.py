"""Wikitext as sentences of running text, with its links marked.

What becomes of a page (as WikiExtractor does, from which ERNIE and CoLAKE made their text, where it is not said):
- Templates, tables, references, files, formulas, lists, headings and comments are left out. Brackets that are empty
  then go, too. A line in which marks are left over is left out.
- A link is the text that is shown, with the letters that follow it ("[[bus]]es"). Its target is what stands before "#",
  the first letter in upper case.
- A sentence ends at the end of a line, and at ".", "!" or "?", quotes and brackets after them included, if a space and
  then an upper-case letter, digit, quote or bracket follows. Not inside a link, and not at the period after a single
  letter, an abbreviation of a short list, or a word with a period inside ("U.S.").

In a sentence a link is a character that says which of the page's it is, its text, and a character that ends it, all of
them from the ranges that Unicode keeps for private use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

Pages = list[tuple[str, str]]  # title and wikitext
Apart = list[tuple[str, list[str], list[str]]]  # title, sentences with marked links, what the page's links lead to

FILE, CATEGORY = 6, 14  # namespaces that are shown elsewhere than in the text

_WIKI = re.compile(r"[a-z]{2,3}(-[a-z]+)*")  # another language's wiki
_FIRST, _LAST, _CLOSE, _ITEM_OF_LIST = 0xF0000, 0x10FFFD, "\ue001", "\ue002"
_PRIVATE = re.compile("[\ue001\ue002\U000f0000-\U0010ffff]")
_OPEN = "[\U000f0000-\U0010fffd]"
_LINK = re.compile(f"({_OPEN})([^{_CLOSE}]*){_CLOSE}")
_TRAIL = re.compile(f"{_CLOSE}([a-z]+)")

_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_REFERENCE = re.compile(r"<ref(?:\s[^<>]*)?/>|<ref(?:\s[^<>]*[^<>/])?>[^<]*</ref\s*>", re.IGNORECASE)
_DROPPED = (
    " ref references table gallery math chem ce score syntaxhighlight source timeline imagemap hiero graph mapframe "
    "maplink templatedata templatestyles includeonly style script pre indicator section "
)
_LISTED = " li dd dt "
_BREAKING = " br hr p div blockquote center poem ul ol dl "
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|</?[a-z]")
_TIDIED = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"__[A-Z]+__", ""),
        (r"'{2,}", ""),
        (r"[^\S\n]+", " "),
        (r"\( ?[,;:][,;: ]*", "("),
        (r"[,;: ]*[,;:] ?\)", ")"),
        (r" ?\( ?\)", ""),
        (r" +(?=[,;:.!?)](?:\s|$))", ""),
    )
)
_END = re.compile(rf"([.!?])[\"'”’»)\]{_CLOSE}]*\s+(?=[\"'“‘«(\[]*{_OPEN}?[\"'“‘«(\[]*(\w))")
_BEFORE = re.compile(r"[^\s(\[\"'“‘]*$")
_ABBREVIATIONS = (
    " mr mrs ms dr prof st ste mt ft rev hon pres gov gen col capt lt sgt maj cmdr adm sen rep jr sr bros no nos vol "
    "vols pp pg ch fig figs ed eds trans op cit approx ca circa cf etc al vs viz inc ltd co corp dept univ est fl jan "
    "feb mar apr jun jul aug sep sept oct nov dec ave blvd "
)


def taken_apart(pages: Pages, namespaces: Mapping[str, int]) -> Apart:
    """Some articles as sentences; without any where the parser of wikitext gives up.

    Args:
        pages: the articles.
        namespaces: name of a namespace in lower case -> its number.
    """
    return [(title, *marked(wikitext, namespaces)) for title, wikitext in pages]


def marked(wikitext: str, namespaces: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The sentences of an article with marked links, and what each link leads to."""
    import mwparserfromhell
    from mwparserfromhell.parser import ParserError

    source = _PRIVATE.sub("", wikitext)
    # what surely goes is taken out at once: the parser would need more time for it than for all the rest
    source, found = _COMMENT.sub("", source), 1
    while found:
        source, found = _TEMPLATE.subn("", source)
    source = _REFERENCE.sub("", source)
    out: list[str] = []
    links: list[str] = []
    try:
        _Flat(out, links, namespaces).add(mwparserfromhell.parse(source, skip_style_tags=True))
    except (ParserError, RecursionError):
        return [], []
    text = _TRAIL.sub(rf"\1{_CLOSE}", "".join(out))
    for pattern, by in _TIDIED:
        text = pattern.sub(by, text)
    sentences = []
    for line in map(str.strip, text.split("\n")):
        if line and line[0] not in f"{_ITEM_OF_LIST}|!*#:;" and not _LEFT_OVER.search(line):
            sentences += [one for one in split(line) if any(map(str.isalpha, one))]
    return sentences, links


def split(line: str) -> Iterator[str]:
    """The sentences of a line; in the line, links may be marked."""
    first = 0
    for found in _END.finditer(line):
        if not (found[2].isupper() or found[2].isdigit()):
            continue
        end = found.end()
        opened = _LINK.sub("", line[first:end])
        if re.search(_OPEN, opened):
            continue
        if found[1] == ".":
            before = _BEFORE.search(re.sub(f"{_OPEN}|{_CLOSE}", "", line[first : found.start()]))
            word = before[0] if before else ""
            if (len(word) == 1 and word.isalpha()) or "." in word or f" {word.lower()} " in _ABBREVIATIONS:
                continue
        yield line[first:end].strip()
        first = end
    if line[first:].strip():
        yield line[first:].strip()


def unmarked(sentence: str) -> tuple[str, list[tuple[int, int, int]]]:
    """A sentence without marks, and of each link where its text starts and ends, and which of the page's it is."""
    text, links, last = "", [], 0
    for found in _LINK.finditer(sentence):
        text += sentence[last : found.start()]
        links.append((len(text), len(text) + len(found[2]), ord(found[1]) - _FIRST))
        text, last = text + found[2], found.end()
    return text + sentence[last:], links


def normal_title(spelt: str) -> str:
    """A title as a link or a page spells it, in one spelling: no "_", no "#...", the first letter in upper case."""
    title = " ".join(unescape(spelt).partition("#")[0].replace("_", " ").split()).removeprefix(":").lstrip()
    first = title[:1].upper()
    return (first if len(first) == 1 else title[:1]) + title[1:]


@dataclass
class _Flat:
    """What of wikitext is shown: pieces of text with marked links, and the target of each link."""

    out: list[str]
    links: list[str]
    namespaces: Mapping[str, int]
    inside: bool = False

    def add(self, code: Any) -> None:
        """Take up some wikitext."""
        from mwparserfromhell import nodes

        for node in code.nodes:
            if isinstance(node, nodes.Text):
                self.out.append(node.value)
            elif isinstance(node, nodes.Wikilink):
                self._link(node)
            elif isinstance(node, nodes.HTMLEntity):
                self.out.append(_PRIVATE.sub("", node.normalize()))
            elif isinstance(node, nodes.Tag):
                self._tag(node)
            elif isinstance(node, nodes.ExternalLink) and node.brackets and node.title is not None:
                self.add(node.title)
            elif isinstance(node, nodes.Heading):
                self.out.append("\n")

    def _tag(self, node: Any) -> None:
        name = f" {str(node.tag).strip().lower()} "
        if name in _LISTED:
            self.out.append(_ITEM_OF_LIST)
        if name in _DROPPED:
            return
        if name in _BREAKING:
            self.out.append("\n")
        if node.contents is not None and not node.self_closing:
            self.add(node.contents)
            if name in _BREAKING:
                self.out.append("\n")

    def _link(self, node: Any) -> None:
        spelt = str(node.title).strip()
        prefix, colon, _ = spelt.partition(":")
        prefix = prefix.strip().replace("_", " ").lower()
        if colon and self.namespaces.get(prefix) in (FILE, CATEGORY):
            return
        if colon and node.text is None and _WIKI.fullmatch(prefix) and spelt[:1].islower():
            return
        shown = _Flat([], self.links, self.namespaces, inside=True)
        if node.text is None:
            shown.out.append(unescape(spelt.removeprefix(":")))
        else:
            shown.add(node.text)
        text = _PRIVATE.sub("", "".join(shown.out))
        words = " ".join(re.sub("'{2,}", "", text).split())
        edges = [" " if edge.isspace() else "" for edge in (text[:1], text[-1:])]
        target = normal_title(spelt)
        if self.inside or not target or not words or len(self.links) > _LAST - _FIRST:
            self.out.append(words)
            return
        self.out += [edges[0], chr(_FIRST + len(self.links)), words, _CLOSE, edges[1]]
        self.links.append(target)
