"""Which links are found in HTML, and that nothing else of it changes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_fluxomail.sandbox.tracking.rewriting import rewritten


def rewrite(html: str) -> tuple[list[str], str]:
    """The URLs of the links that are found, and the document with ``[0]``, ``[1]``, ... for them and ``{end}``."""
    found: list[str] = []

    def target(url: str, label: bytes) -> str:
        found.append(url)
        return f"[{len(found) - 1}]"

    return found, rewritten(html, target, "{end}")


@pytest.mark.parametrize(
    ("html", "url", "expected"),
    [
        ('<a href="https://example.org/">x</a>', "https://example.org/", '<a href="[0]">x</a>{end}'),
        ("<a href='https://example.org/\"q'>x</a>", 'https://example.org/"q', '<a href="[0]">x</a>{end}'),
        ("<a href=https://example.org/>x</a>", "https://example.org/", '<a href="[0]">x</a>{end}'),
        ("<A class=c\nHREF\n =\n 'HTTP://E.org' id=i>", "HTTP://E.org", '<A class=c\nHREF\n =\n "[0]" id=i>{end}'),
        ("<a title='a > b'href='https://e.org'>", "https://e.org", "<a title='a > b'href=\"[0]\">{end}"),
        ("<a href=' https://e.org/a\r\nb\t '>", "https://e.org/ab", '<a href="[0]">{end}'),
        # Entities
        ("<a href='https://e.org/?a=1&amp;b=&#50;&#x26;c'>", "https://e.org/?a=1&b=2&c", '<a href="[0]">{end}'),
        ("<a href='https://e.org/?a=1&copy=2&b'>", "https://e.org/?a=1&copy=2&b", '<a href="[0]">{end}'),
        ("<a href='https&#58;//e.org'>", "https://e.org", '<a href="[0]">{end}'),
        # Which element, and which of its attributes
        (
            "<map><area shape=rect href='https://e.org'></map>",
            "https://e.org",
            '<map><area shape=rect href="[0]"></map>{end}',
        ),
        ("<svg><a xlink:href='https://e.org'/></svg>", "https://e.org", '<svg><a xlink:href="[0]"/></svg>{end}'),
        (
            "<a data-href='https://no' href='https://e.org'>",
            "https://e.org",
            "<a data-href='https://no' href=\"[0]\">{end}",
        ),
        (
            "<a title='href=https://no' href='https://e.org'>",
            "https://e.org",
            "<a title='href=https://no' href=\"[0]\">{end}",
        ),
        ("<a title=\"href=\" href='https://e.org'>", "https://e.org", '<a title="href=" href="[0]">{end}'),
        ("<a href='https://e.org' href='https://no'>", "https://e.org", "<a href=\"[0]\" href='https://no'>{end}"),
        ("<a href='https://e.org/?x href=1'>", "https://e.org/?x href=1", '<a href="[0]">{end}'),
        # Beside what is no link
        (
            "<!-- <a href='https://no'></body> --><a href=https://e.org>",
            "https://e.org",
            "<!-- <a href='https://no'></body> --><a href=\"[0]\">{end}",
        ),
        (
            "<script>'<a href=https://no>'</script><a href=https://e.org>",
            "https://e.org",
            "<script>'<a href=https://no>'</script><a href=\"[0]\">{end}",
        ),
        (
            "<!--[if !mso]><!--><a href='https://e.org'><!--<![endif]-->",
            "https://e.org",
            '<!--[if !mso]><!--><a href="[0]"><!--<![endif]-->{end}',
        ),
        (
            "<![if !mso]><a href='https://e.org'><![endif]>",
            "https://e.org",
            '<![if !mso]><a href="[0]"><![endif]>{end}',
        ),
        (
            "<img srcset='https://no 2x'><a href='https://e.org'>",
            "https://e.org",
            "<img srcset='https://no 2x'><a href=\"[0]\">{end}",
        ),
        # Malformed
        ("\0\x01<a href='https://e.org'>\ufffe", "https://e.org", '\0\x01<a href="[0]">\ufffe{end}'),
        ("<a href='https://e.org' <b>", "https://e.org", '<a href="[0]" <b>{end}'),
        ("</body></html></body><a href='https://e.org'>", "https://e.org", '</body></html>{end}</body><a href="[0]">'),
        ("<p><table><a href='https://e.org'></p><td>", "https://e.org", '<p><table><a href="[0]"></p><td>{end}'),
        ("<div>" * 5_000 + "<a href='https://e.org'>", "https://e.org", "<div>" * 5_000 + '<a href="[0]">{end}'),
        ("<a href='https://é.example/ü?😀'>", "https://é.example/ü?😀", '<a href="[0]">{end}'),
    ],
)
def test_a_link(html: str, url: str, expected: str) -> None:
    assert rewrite(html) == ([url], expected)


@pytest.mark.parametrize(
    "html",
    [
        "",
        "text",
        "<p>Loaded 20 rows.",
        "<a name=href>",
        "<a href>",
        "<a href=''>",
        "<a href='mailto:ops@example.org'>",
        "<a href='tel:+1'>",
        "<a href='#top'>",
        "<a href='javascript:alert(1)'>",
        "<a href='data:text/html,x'>",
        "<a href='/relative'>",
        "<base href='https://example.org/'><a href='relative'>",
        "<a href='//example.org/'>",
        "<a href='https:///'>",
        "<a href='{{ url }}'>",
        "<link href='https://example.org/'>",
        "<form action='https://example.org/'><input value='</body>'></form>",
        "<style>a{} <a href='https://example.org/'></style>",
        "<!-- <a href='https://example.org/'>",
        "<a title=\"<a href='https://example.org/'>\">",
        "<a-b href='https://example.org/'>",
        # A quote in a value without quotes: the copy would have another URL here.
        '<a href=https://example.org/"href=1>',
        "href='https://example.org/'",
        '<a href="https://example.org/>',
        "<" * 10_000,
        "<!--" * 1_000,
    ],
)
def test_no_link(html: str) -> None:
    assert rewrite(html) == ([], html + "{end}")


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<html><body><p>x</p></body></html>", "<html><body><p>x</p>{end}</body></html>"),
        ("<p>x</p></BODY >\n</html>\n", "<p>x</p>{end}</BODY >\n</html>\n"),
        ("<p>x</p></html>", "<p>x</p>{end}</html>"),
        ("<body>x</body><body>y</body>z", "<body>x</body><body>y{end}</body>z"),
        ("<p>x</p></body><!-- </body> --></html>", "<p>x</p>{end}</body><!-- </body> --></html>"),
        ("<p title='</body>'>x", "<p title='</body>'>x{end}"),
        ("x</bodyguard>", "x</bodyguard>{end}"),
    ],
)
def test_the_end_of_the_body(html: str, expected: str) -> None:
    assert rewrite(html) == ([], expected)


def test_many_links_in_their_order() -> None:
    rows = [
        f'<tr><td><a href="https://example.org/{number}?a&amp;b">{number}</a></td></tr>\r\n' for number in range(3_000)
    ]
    found, html = rewrite(f"<table>{''.join(rows)}</table>")
    assert found == [f"https://example.org/{number}?a&b" for number in range(3_000)]
    assert (
        html
        == "<table>"
        + "".join(f'<tr><td><a href="[{number}]">{number}</a></td></tr>\r\n' for number in range(3_000))
        + "</table>{end}"
    )


def test_a_link_may_be_left_alone() -> None:
    html = (
        "<a href='https://a.example'>x</a><a href='https://b.example'><b>UNSUBSCRIBE</b></a><a href=https://c.example>"
    )
    labels = []

    def target(url: str, label: bytes) -> str | None:
        labels.append(label)
        return "<&>" if url == "https://c.example" else None

    assert rewritten(html, target, "") == html.replace("https://c.example", '"&lt;&amp;&gt;"')
    assert labels == [b">x", b"><b>unsubscribe</b>", b""]


def test_lxml_is_imported_for_html_with_links_only() -> None:
    program = (
        "import sys\n"
        "from airflow_provider_fluxomail.sandbox import app\n"
        "from airflow_provider_fluxomail.sandbox.tracking.rewriting import rewritten\n"
        "rewritten('<p>Loaded <b>20</b> rows.</p>', lambda url, label: None, 'tail')\n"
        "assert not any(name.startswith('lxml') for name in sys.modules)\n"
        "rewritten('<a href=https://example.org>', lambda url, label: None, 'tail')\n"
        "assert 'lxml.etree' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_link_after_eleven_megabytes() -> None:
    """Without its switch for large documents, libxml2 gives up after ten."""
    found, _ = rewrite(f"<p>{'x' * 11_000_000}</p><a href=https://example.org>")
    assert found == ["https://example.org"]
