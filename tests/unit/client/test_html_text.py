"""The text that is derived from HTML, and what of a long body is sent."""

from __future__ import annotations

import re

import pytest

from airflow_provider_fluxomail.client.html_text import MAX_DERIVED_TEXT, shortened, text_from_html

ROWS = "".join(f"<tr><td>{number}</td><td>abc</td><td align=right>1</td></tr>" for number in range(5000))
DEEP = ("<div>", "<table><tr><td>", "<ul>", "<blockquote>", "<b>", "<o:p>")


def test_text_from_html_keeps_links_lists_and_tables_readable() -> None:
    text = text_from_html(
        "<head><title>T</title><style>p{color:red}</style></head><h1>Report</h1><p>See <a href='https://x.y/z'>it</a>."
        "</p><ul><li>one</li></ul><table><tr><td>a</td><td>1</td></tr></table><script>x()</script>"
    )
    for kept in ("[it](https://x.y/z)", "* one", "a  1"):
        assert kept in text
    assert "color" not in text
    assert "x()" not in text


def test_a_wide_cell_does_not_widen_its_column() -> None:
    text = text_from_html(f"<table>{ROWS}<tr><td>{'word ' * 2000}</td><td>last</td></tr></table>")
    lines = text.splitlines()
    assert len(text) < 200_000
    assert re.fullmatch(r"7 +abc +1", lines[7])
    assert {line.index("abc") for line in lines[:-1]} == {lines[7].index("abc")}
    assert len(lines[-1].split()) == 2001


@pytest.mark.parametrize(
    "markup",
    [
        "<table>" + "<tr>" + f"<td>{'a<br>' * 10_000}</td>" + "<td>bbbbbbbb</td>" * 100 + "</tr></table>",
        "<table><tr>" + f"<td>{'w ' * 45}</td>" * 100 + "</tr>" + ("<tr>" + "<td>" * 100) * 100 + "</table>",
        "<ul><li>x" * 3000,
        "<p>some words</p>" * 30_000,
        "<i>x</i>" * 60_000,
        "word " * 2_000_000,
        "<" * 1_000_000,
        "&" * 1_000_000,
        "<table>" + "&#xfdd0;0&#xfdd0;" * 1000 + f"<tr><td>{'word ' * 2000}</table>",
    ],
    ids=lambda markup: markup[:12],
)
def test_derived_text_is_bounded(markup: str) -> None:
    text = text_from_html(markup)
    assert len(text) <= MAX_DERIVED_TEXT + 200
    if len(text) > MAX_DERIVED_TEXT:
        assert re.search(r"left out here: see the HTML version of this email\]", text)


@pytest.mark.parametrize("tag", DEEP)
@pytest.mark.parametrize("depth", [99, 100, 101, 254, 255, 256, 2048, 60_000])
def test_deep_nesting_loses_nothing(tag: str, depth: int) -> None:
    closing = "".join(f"</{name}>" for name in reversed(re.findall(r"<([\w:]+)", tag)))
    page = f"<p>before</p>{tag * depth}deep<style>hidden</style>{closing * depth}<p>after</p>"
    words = text_from_html(page).split()
    assert [word for word in words if word.isalpha() and len(word) > 1][:3] == ["before", "deep", "after"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<?xml version='1.0' encoding='utf-16'?><p>x</p>", "x"),
        ("<meta charset=latin-1><p>é</p>", "é"),
        ("<body>a</body></html><p>b", "a\n\nb"),
        ("a<!-- x -->b", "ab"),
        ("<p>\x1b[1mred\x1b[0m &#1;", "[1mred[0m"),
        ('<a"b>x</a>', "x"),
        ("x\ud800", "x\ufffd"),
        ("<!-- only -->", ""),
        (" ", ""),
    ],
)
def test_odd_markup(markup: str, text: str) -> None:
    assert text_from_html(markup) == text


@pytest.mark.parametrize(
    ("middle", "end"),
    [
        ("word " * 100, '<a href="x">end</a>'),
        ("<b class='yyyyyyyyyyyy'>" * 20, "end"),
        ("&eacute;" * 60, "end"),
        ("<style>" + "p{} " * 99 + "</style>", "end"),
        ("<!-- " + "x " * 99 + "-->", "end"),
    ],
)
@pytest.mark.parametrize("most", range(40, 80))
def test_a_cut_leaves_both_ends_readable(middle: str, end: str, most: int) -> None:
    kept = shortened(f"start {middle}{end}", most, note="see <it>", markup=True)
    assert kept.startswith("start ")
    words = text_from_html(kept)
    assert re.match(r"start [^<&{]*\[\d+ characters are left out here: see <it>\]", " ".join(words.split()))
    assert "end" in words
    assert not re.search(r"eacu|yyy|class|-->", words)


def test_what_is_short_enough_stays() -> None:
    assert shortened("x" * 50, 50) == "x" * 50
    assert shortened("x" * 51, 40) == f"{'x' * 30}\n\n[11 characters are left out here]\n\n{'x' * 10}"
