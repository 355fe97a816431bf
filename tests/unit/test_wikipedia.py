"""A dump of a wiki as documents: links by title, what of wikitext is text, sentences, every kind of broken file."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest

from kbench.errors import DataError, Problem
from kbench.knowledge import wikipedia
from kbench.knowledge.corpora import Document, documents
from kbench.knowledge.wikipedia import Titles
from kbench.knowledge.wikitext import normal_title, split

PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="en">\n<siteinfo>'
    "<sitename>Wikipedia</sitename><case>first-letter</case><namespaces>"
    '<namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Bild</namespace>'
    '<namespace key="14" case="first-letter">Kategorie</namespace><namespace key="10">Template</namespace>'
    "</namespaces></siteinfo>\n"
)


def page(number: int, title: str, text: str = "", redirect: str | None = None, namespace: int = 0) -> str:
    """A page as MediaWiki exports it; its revision and contributor have ids of their own."""
    moved = "" if redirect is None else f'<redirect title="{escape(redirect)}" />'
    return (
        f"<page>\n<title>{escape(title)}</title>\n<ns>{namespace}</ns>\n<id>{number}</id>\n{moved}<revision>\n"
        f"<id>{number + 1000}</id><contributor><username>A</username><id>7</id></contributor>\n"
        f'<text bytes="1" xml:space="preserve">{escape(text)}</text>\n</revision>\n</page>\n'
    )


def table(items: dict[int, int]) -> bytes:
    """The table of page properties as mysqldump writes it, with properties of other kinds among them."""
    rows = [f"({page},'defaultsort','It\\'s (9,\\'wikibase_item\\',\\'Q9\\''),({page},'wikibase_item','Q{item}',NULL)"
            for page, item in items.items()]  # fmt: skip
    return f"-- MySQL dump\nINSERT INTO `page_props` VALUES {','.join(rows)};\n".encode()


def written(folder: Path, pages: str, items: dict[int, int], ending: str = "") -> dict[str, tuple[Path, ...]]:
    """The two files of a dump."""
    paths = folder / f"pages-articles.xml{ending}", folder / f"page_props.sql{ending}"
    paths[0].write_bytes(PACKERS[ending](f"{HEAD}{pages}</mediawiki>\n".encode()))
    paths[1].write_bytes(PACKERS[ending](table(items)))
    return {"pages": paths[:1], "page_props": paths[1:]}


WORLD = "".join(
    [
        page(10, "Belgium", "'''Belgium''' is a country."),
        page(11, "Douglas Adams", "x"),
        page(12, "Mercury", "'''Mercury''' may refer to:\n* [[Mercury (planet)]]\n* [[Mercury (element)]]"),
        page(13, "Omnibus", redirect="Bus"),
        page(14, "Charabanc", redirect="omnibus#History"),
        page(15, "Bus", "A '''bus''' is a road vehicle."),
        page(16, "Loop", redirect="Pool"),
        page(17, "Pool", redirect="Loop"),
        page(18, "Template:Box", "Hidden [[Belgium]].", namespace=10),
        page(19, "Star Wars: A & B", "Film."),
    ]
)
ITEMS = {10: 31, 11: 42, 15: 5638, 16: 1, 18: 99, 19: 17738}


def read(folder: Path, text: str) -> list[tuple[str, list[tuple[str, int | None]]]]:
    """Sentences of an article with their mentions as they are written."""
    files = written(folder, WORLD + page(50, "Article", text), ITEMS)
    found = [one for one in documents("wikipedia", files) if one.title == "Article"]
    return shown(found[0]) if found else []


def shown(document: Document) -> list[tuple[str, list[tuple[str, int | None]]]]:
    return [(one.text, [(one.text[s.start : s.end], s.number) for s in one.spans]) for one in document.sentences]


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2"])
def test_articles_are_read_and_nothing_else(ending: str, tmp_path: Path) -> None:
    files = written(tmp_path, WORLD, ITEMS, ending)
    found = list(documents("wikipedia", files))
    assert [one.title for one in found] == ["Belgium", "Douglas Adams", "Mercury", "Bus", "Star Wars: A & B"]
    assert [one.sentences[0].text for one in found] == [
        "Belgium is a country.", "x", "Mercury may refer to:", "A bus is a road vehicle.", "Film.",
    ]  # fmt: skip


def test_titles_lead_to_numbers_over_redirects(tmp_path: Path) -> None:
    titles = Titles.of(written(tmp_path, WORLD, ITEMS))
    wanted = {"Belgium": 31, "Omnibus": 5638, "Charabanc": 5638, "Star Wars: A & B": 17738}
    # without a number, a redirect to itself, of another namespace, not there at all
    wanted |= dict.fromkeys(["Mercury", "Loop", "Pool", "Template:Box", "Nowhere"], -1)
    assert titles.numbers_of(list(wanted)) == list(wanted.values())
    assert len(titles) == 6


@pytest.mark.parametrize(
    ("spelt", "normal"),
    [
        ("douglas_Adams", "Douglas Adams"), (" :belgium#History ", "Belgium"), ("A__B:  C &amp; D", "A B: C & D"),
        ("éclair", "Éclair"), ("ßeta", "ßeta"), ("#Section", ""), ("", ""),
    ],
)  # fmt: skip
def test_normal_titles(spelt: str, normal: str) -> None:
    assert normal_title(spelt) == normal


def test_links_are_the_text_that_is_shown(tmp_path: Path) -> None:
    text = (
        "The [[bus]]es and [[Charabanc|old ''motor'' coaches]] of [[douglas_Adams#Life|Adams]] went to "
        "[[Mercury]], [[Nowhere|nowhere]] and[[Belgium| Belgium ]]."
    )
    ((sentence, links),) = read(tmp_path, text)
    assert sentence == "The buses and old motor coaches of Adams went to Mercury, nowhere and Belgium."
    assert links == [("buses", 5638), ("old motor coaches", 5638), ("Adams", 42), ("Belgium", 31)]


def test_what_is_no_running_text_is_left_out(tmp_path: Path) -> None:
    text = """{{Infobox|a={{nested|[[Belgium]]|b={{{c|}}}}}|d=<ref>x</ref>}}
[[File:A.jpg|thumb|A [[Belgium|picture]] of it.]]
[[Bild:B.jpg|B]][[Kategorie:Things]][[Category:Things| ]]
The '''thing''' ({{IPA|x}}; born {{date}}, [[Belgium]]) costs&nbsp;3&#8211;4&thinsp;<math>x^2</math>francs<ref name="a">
See [[Belgium]].</ref><ref name="a"/>.<!-- not
this --> It __NOTOC__ is ( {{x}} ) [http://a.b here] [http://c.d] <small>small</small>.
{| class="wikitable"
|-
| A cell of [[Belgium]].
|}
== A heading of [[Belgium]] ==
* An item of [[Belgium]].
# Another one.
:An indented one.
Broken {{template of [[Belgium]].
See [[:Category:Things]] and [[:fr:Chose|a thing]].
[[de:Ding]]
"""
    found = read(tmp_path, text)
    assert [one for one, _ in found] == [
        "The thing (born, Belgium) costs 3–4 francs.",
        "It is here small.",
        "See Category:Things and a thing.",
    ]
    assert [links for _, links in found] == [[("Belgium", 31)], [], []]


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("J. R. Adams and Dr. No met. He left.", ["J. R. Adams and Dr. No met.", "He left."]),
        ("In the U.S. Army of ca. 1900 it cost 3.5 francs. then more.", 1),
        ('He said "Stop." Then (he did.) "Why?" 7 left.', ['He said "Stop."', "Then (he did.)", '"Why?"', "7 left."]),
        ("", []),
        (" ", []),
    ],
)
def test_sentences(line: str, sentences: list[str] | int) -> None:
    assert list(split(line)) == ([line] if sentences == 1 else sentences)


def test_a_link_is_not_split_and_may_begin_or_end_a_sentence(tmp_path: Path) -> None:
    text = "He read [[Belgium|Well. That was it]]. [[Bus|Buses]] go to [[Belgium|A. Inc.]] [[Douglas Adams|He]] did."
    assert read(tmp_path, text) == [
        ("He read Well. That was it.", [("Well. That was it", 31)]),
        ("Buses go to A. Inc. He did.", [("Buses", 5638), ("A. Inc.", 31), ("He", 42)]),
    ]


def test_characters_that_mark_links_inside_are_taken_out_of_the_source(tmp_path: Path) -> None:
    text = "A \U000f0003\ue001[[Belgium|Bel\U000f0000gium]]&#xF0001; &#xE001;x."
    assert read(tmp_path, text) == [("A Belgium x.", [("Belgium", 31)])]


def test_several_files_are_one_dump(tmp_path: Path) -> None:
    files = written(tmp_path, page(50, "Article", "To [[Charabanc]]."), ITEMS)
    second = tmp_path / "pages-articles2.xml"
    second.write_text(f"{HEAD}{WORLD}</mediawiki>", encoding="utf-8")
    found = list(documents("wikipedia", {**files, "pages": (*files["pages"], second)}))
    assert shown(found[0]) == [("To Charabanc.", [("Charabanc", 5638)])]
    assert len(found) == 6


def test_several_processes_give_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "_PORTION", 1000)  # more portions than are under way at a time
    text = "[[Belgium]] and [[Douglas Adams|he]]. " * 20
    pages = WORLD + "".join(page(number, f"Article {number}", f"Of {number}. {text}") for number in range(100, 150))
    files = written(tmp_path, pages, ITEMS, ".bz2")
    alone, together = (list(wikipedia.documents(files, processes)) for processes in (1, 2))
    assert len(alone) == 55
    assert alone == together


def problem_of(files: dict[str, tuple[Path, ...]]) -> Problem:
    with pytest.raises(DataError) as raised:
        list(documents("wikipedia", files))
    (problem,) = raised.value.problems
    return problem


def test_a_packed_dump_that_was_cut_off(tmp_path: Path) -> None:
    files = written(tmp_path, WORLD, ITEMS, ".bz2")
    (path,) = files["pages"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = problem_of(files)
    assert found.where == str(path)
    assert found.what == f"is cut off: it ends at byte {len(whole) // 2} inside a stream"
    path.write_bytes(whole[:200] + bytes(50) + whole[250:])
    found = problem_of(files)
    assert found.where.startswith(f"{path}, before byte")
    assert found.what.startswith("is damaged: ")


CUT = f"{HEAD}{WORLD}".partition("road vehicle")[0]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (CUT, CUT.count("\n") + 1, "is cut off: it ends inside <text>"),
        (HEAD, 3, "is cut off: it ends inside <mediawiki>"),
        (f"{HEAD}<page></pages>", 3, "is no XML: mismatched tag"),
        (f"{HEAD}<page><title>A</title></page>", 3, "ends a page without a title or an id"),
        ("<feed>\n<doc/></feed>", 1, "is no dump of a wiki: it begins with <feed>"),
        ("hello", 1, "is no XML: syntax error"),
        (f'<!DOCTYPE a [<!ENTITY b "c">]>\n{HEAD}', 1, "declares an entity, which no dump does"),
    ],
)
def test_a_dump_that_is_none(content: str, line: int, what: str, tmp_path: Path) -> None:
    files = written(tmp_path, "", ITEMS)
    (path,) = files["pages"]
    path.write_text(content, encoding="utf-8")
    found = problem_of(files)
    assert (found.where, found.what) == (f"{path}, line {line}", what)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    files = written(tmp_path, WORLD, {9000: 1})
    props, pages = files["page_props"][0], files["pages"][0]
    hint = "take both files of one wiki and of one date"
    assert problem_of(files) == Problem(str(props), "has no number of any article of the pages", hint)
    props.write_bytes(b"INSERT INTO `page_props` VALUES (1,'defaultsort','A',NULL);")
    hint = "it is the table page_props.sql, of the wiki that the pages are of"
    assert problem_of(files) == Problem(str(props), "names no wikibase_item", hint)
    props.write_bytes(b"")
    assert problem_of(files).what == "is empty"
    props.write_bytes(table(ITEMS))
    pages.write_bytes(b"")
    assert (problem_of(files).where, problem_of(files).what) == (str(pages), "is empty")
