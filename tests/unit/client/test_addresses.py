"""How text and lists become recipients: one reader for every face."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client import addresses
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from tests.support.good_messages import message, refused

#: Values, and what they are to the faces that send one message to each recipient.
LISTS: list[tuple[Any, list[Any]]] = [
    ("a@x.org", ["a@x.org"]),
    ("a@x.org, b@x.org;c@x.org,", ["a@x.org", "b@x.org", "c@x.org"]),
    ('"Doe, Jane; PhD" <j@x.org>; b@x.org', ['"Doe, Jane; PhD" <j@x.org>', "b@x.org"]),
    (r'"Say \"hi; there\"" <j@x.org>, b@x.org', [r'"Say \"hi; there\"" <j@x.org>', "b@x.org"]),
    (["a@x.org", "b@x.org"], ["a@x.org", "b@x.org"]),
    ([["a@x.org"], ("b@x.org",)], ["a@x.org", "b@x.org"]),
    ({"a@x.org": 1, "b@x.org": 2}.keys(), ["a@x.org", "b@x.org"]),
    ("['a@x.org', 'b@x.org']", ["a@x.org", "b@x.org"]),
    (["Doe, Jane <j@x.org>", "b@x.org"], ["Doe, Jane <j@x.org>", "b@x.org"]),
    ("a@x.org\nb@x.org;\r\n c@x.org\n", ["a@x.org", "b@x.org", "c@x.org"]),
    ('Jo "J, K" Doe <a@x.org>; b@x.org', ['Jo "J, K" Doe <a@x.org>', "b@x.org"]),
    (" ; ,\n", []),
    (None, []),
]


@pytest.mark.parametrize(("value", "found"), LISTS)
def test_recipients_and_copies(value: Any, found: list[Any]) -> None:
    assert addresses.recipients(value) == found
    mail = EmailMessage.of({"to": "o@x.org", "subject": "Hi", "content": "x", "cc": value, "bcc": value})
    assert list(mail.cc) == list(mail.bcc) == [addresses.header_form(one) if "," in one else one for one in found]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (["a@x.org", "A@x.org;", "b@x.org; c@x.org"], ["a@x.org", "b@x.org; c@x.org"]),
        ("a@x.org;\n b@x.org ;", ["a@x.org", "b@x.org"]),
        (["b@x.org", "a@x.org", "B <B@x.org>"], ["b@x.org", "a@x.org"]),
        # What is wrong with one of them is for its message to say.
        ("[broken, b@x.org", ["[broken", "b@x.org"]),
        ("Doe, Jane <j@x.org>", ["Doe", "Jane <j@x.org>"]),
        ('"Doe <a@x.org>, b@x.org', ['"Doe <a@x.org>', "b@x.org"]),
        (["a@x.org", None, " ", 5], ["a@x.org", None, 5]),
    ],
)
def test_each_recipient_is_listed_once_and_a_bad_one_does_not_affect_the_others(value: Any, found: list[Any]) -> None:
    assert addresses.recipients(value) == found


def test_a_list_that_contains_itself() -> None:
    people: list[Any] = ["a@x.org"]
    people.append(people)
    for field in ("to", "cc"):
        assert refused(**{field: people}) == f"{field} is nested too deeply: give a list of addresses"


@pytest.mark.parametrize("value", [5, {"a@x.org": 1}, b"a@x.org", True])
def test_what_is_no_list_of_addresses(value: Any) -> None:
    for read in (addresses.recipients, lambda value: addresses.addresses(value, "to")):
        with pytest.raises(FluxomailValidationError, match="to must be an address or a list of addresses"):
            read(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a@x.org", "b@x.org; nobody"], "cc[1] is not an email address (it holds SEMICOLON, U+003B)"),
        (["a@x.org", "b@x.org; c@x.org"], "cc[1] holds more than one address: give each an item of its own"),
        (["a@x.org", " ; "], "cc[1] is not an email address"),
        ("a@x.org; nobody", "cc[1] is not an email address"),
        (["a@x.org", ""], "cc[1] is empty"),
        (["a@x.org", None], "cc[1] must be text"),
        ("a@x.org\r\nBcc: b@x.org", "cc[1] is not an email address (it holds COLON"),
        (["a@x.org\nb@x.org"], "cc[0] holds a line break"),
        *((["a@x.org" + mark + "b@x.org"], "cc[0] holds more than one address") for mark in "|/&\uff0c\uff1b\u3001"),
        (["a@@x.org"], "cc[0] is not an email address (it holds COMMERCIAL AT"),
    ],
)
def test_a_copy_that_is_not_an_address(value: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        EmailMessage(to="o@x.org", subject="Hi", content="x", cc=value)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("value", ["a@x.org; ", "a@x.org,", ["a@x.org"], ["a@x.org;"], "['a@x.org']", [["a@x.org"]]])
def test_one_recipient(value: Any) -> None:
    assert EmailMessage(to=value, subject="Hi", content="x").to == "a@x.org"


@pytest.mark.parametrize(
    "value",
    ["a@x.org, b@x.org", "a@x.org b@x.org", "a@x.org ; b@x.org", ["a@x.org; b@x.org"], "['a@x.org', 'b@x.org']",
     ["a@x.org", "b@x.org"], [["a@x.org", "b@x.org"]], "A <a@x.org>; B <b@x.org>"],
)  # fmt: skip
def test_more_than_one_recipient(value: Any) -> None:
    with pytest.raises(FluxomailValidationError, match=r"to holds (2|more than one) address.*\.expand\(to=.*cc or bcc"):
        EmailMessage(to=value, subject="Hi", content="x")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("ada@Example.ORG", "example.org"),
        (" ada@example.org. ", "example.org"),
        ("Ada < ada@example.org >", "example.org"),
        ('"a@b"@example.org', "example.org"),
        ("a@allowed.example <b@other.example> c", ""),
        ("ada", ""),
    ],
)
def test_the_domain_of_an_address(text: str, domain: str) -> None:
    assert addresses.domain_of(text) == domain


def test_domains_in_every_spelling() -> None:
    for text in (" Example.ORG ", "@example.org", "example.org.", " @EXAMPLE.org. "):
        assert addresses.normalised_domain(text) == "example.org"
    assert addresses.normalised_domain("STRA\u00dfE.de") == "stra\u00dfe.de", "of another owner than strasse.de"
    assert addresses.normalised("a@Stra\u00dfe.de") == "a@strasse.de", "keys depend on it: it does not change"


#: Values with the one address ``one@x.org`` in them, and the header that it becomes.
ONE: list[tuple[Any, str]] = [
    # The text of a list, as templates, configuration files and people write it.
    *((value, "one@x.org") for value in (
        "['one@x.org']", '["one@x.org"]', "('one@x.org',)", "('one@x.org')", "{'one@x.org'}",
        "frozenset({'one@x.org'})", "dict_keys(['one@x.org'])", "[one@x.org]", "(one@x.org)", " [ 'one@x.org' ]; ",
        "[\n  'one@x.org',\n]", "'[\"one@x.org\"]'", "[['one@x.org']]", ["['one@x.org']"], [("{'one@x.org'}",)],
        {"one@x.org"}, ['"one@x.org"'],
    )),
    # What is harmless around an address.
    *((value, "one@x.org") for value in (
        "\u200bone@x.org\ufeff", "\u202eone@x.org\u202c", "\u00a0one@x.org\u3164", ["one@x.org\n"], "mailto:one@x.org",
        "MAILTO:one@x.org", "<one@x.org>", "<mailto:one@x.org>", "'one@x.org'", '"one@x.org"', "`one@x.org`",
        "\u201cone@x.org\u201d", "'\u200bmailto:one@x.org'", "one@x.org.", ["one@x.org,"], "\n one@x.org\n",
    )),
    ("Ops <\u200bone@x.org >", "Ops <one@x.org>"),
    ("Ops <mailto:one@x.org>", "Ops <one@x.org>"),
    ("'Ops <one@x.org>'", "Ops <one@x.org>"),
    # Display names: joiners are part of words and emoji; what separates addresses is quoted.
    ("\U0001f469\u200d\U0001f4bb <one@x.org>", "\U0001f469\u200d\U0001f4bb <one@x.org>"),
    (["Doe, Jane <one@x.org>"], '"Doe, Jane" <one@x.org>'),
    ("['Doe, Jane <one@x.org>']", '"Doe, Jane" <one@x.org>'),
    (['"Doe, Jane" <one@x.org>'], '"Doe, Jane" <one@x.org>'),
    (["Doe; Jane (Ops): \\ <one@x.org>"], r'"Doe; Jane (Ops): \\" <one@x.org>'),
    (["[ops] <one@x.org>"], '"[ops]" <one@x.org>'),
    ('Jane "JJ" Doe <one@x.org>', r'"Jane \"JJ\" Doe" <one@x.org>'),
    ('"Jane" "JJ" <one@x.org>', r'"\"Jane\" \"JJ\"" <one@x.org>'),
    ('Jane "one@y.org" <one@x.org>', r'"Jane \"one@y.org\"" <one@x.org>'),
    ("J. O'Neil <one@x.org>", "J. O'Neil <one@x.org>"),
    ("o'neil@x.org", "o'neil@x.org"),
    ('"a, b"@x.org', '"a, b"@x.org'),
    ("one@stra\u00dfe.de", "one@stra\u00dfe.de"),
    ("one@xn--i-7iq.ws", "one@xn--i-7iq.ws"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "header"), ONE, ids=ascii)
def test_one_address_in_every_field(value: Any, header: str) -> None:
    sent = message(to=value, cc=value, bcc=value, extra_fields={"replyTo": value}).to_json()
    assert (sent["to"], sent["cc"], sent["bcc"]) == (header, [header], [header])
    assert sent["replyTo"] == (header if isinstance(value, str) else [header])
    assert message(to=header).to_json()["to"] == header, "it is read as it was written"
    (person,) = addresses.recipients(value)
    assert message(to=[person]).to_json()["to"] == header


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *((value, "came out as None") for value in ("None", " None ", "None@x.org", "one@None", "Ops <None@x.org>")),
        *((value, "SQUARE BRACKET") for value in ("['one@x.org'", "one@x.org']", "one@[127.0.0.1]")),
        *((value, "CURLY BRACKET") for value in ("{{ params.who }}", "{one@x.org}", "${WHO}@x.org")),
        *((value, "APOSTROPHE") for value in ("'one@x.org", "one'@x.org")),
        *((value, "PARENTHESIS") for value in ("(Ops) one@x.org", "deque(['one@x.org'])x")),
        *((value, "COLON") for value in ("to:one@x.org", "smtp://one@x.org")),
        *((value, "dot") for value in ("one@x..org", ".one@x.org", "one.@x.org", "o..ne@x.org", "one@x.org..")),
        *((value, "no domain has such a name") for value in ("one@-x.org", "one@i\u2764.ws", "one@x.org?subject=Hi")),
        ("o\u200bne@x.org", "ZERO WIDTH SPACE, U+200B"),
        ("one@x\u00ad.org", "SOFT HYPHEN, U+00AD"),
        ("Ops <one\ufeff@x.org>", "ZERO WIDTH NO-BREAK SPACE, U+FEFF"),
        ("Ops \u202e <one@x.org>", "RIGHT-TO-LEFT OVERRIDE, U+202E"),
        ("one @x.org", "SPACE"),
        ("\\one@x.org", "REVERSE SOLIDUS"),
        ("['one@x.org' 'two@x.org']", "more than one address"),
        *((value, "give name@example.com") for value in ("null", "nan", "one\uff20x.org", "<<one@x.org>>")),
        *((value, "must be text, not") for value in ([{"email": "one@x.org"}], [5], [b"one@x.org"], "[5]", "[{}]")),
        *((value, "must be an address or a list") for value in ("{'one@x.org': 1}", '{"email": "one@x.org"}', "(5)")),
    ],
    ids=ascii,
)  # fmt: skip
def test_what_cannot_be_read_as_an_address_is_named(value: Any, told: str) -> None:
    for field in ("to", "cc", "bcc", "extra_fields"):
        said = refused(**{field: {"replyTo": value} if field == "extra_fields" else value})
        assert said.startswith(field)
        assert told in said
        assert "x.org" not in said


def test_the_items_of_a_set_are_in_the_same_order_in_every_process() -> None:
    people = {f"p{number}@x.org" for number in range(9)}
    assert list(message(cc=people).cc) == list(message(cc=str(people)).cc) == sorted(people)
    assert addresses.recipients([people]) == sorted(people)


def test_reading_takes_linear_time() -> None:
    for text in (
        " " * 200_000 + "x",
        "x" + " " * 200_000 + "<",
        "," * 200_000 + "x",
        "[" * 100_000,
        "'" * 100_000,
        '"\\' * 20_000,
    ):
        assert refused(to=text).startswith("to ")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a@stra\u00dfe.de", "a@strasse.de", False),
        ("a@stra\u00dfe.de", "A <A@xn--strae-oqa.DE>", True),
        ("a@STRA\u1e9eE.de", "a@stra\u00dfe.de.", True),
        ("a@b\u00fccher.example", "a@bu\u0308cher.example", True),
        ("a@\uff45xample.org", "a@example.org", True),
        ("stra\u00dfe@x.org", "strasse@x.org", True),
        ("no address", "No Address", True),
    ],
)
def test_domains_are_compared_as_dns_knows_them(first: str, second: str, same: bool) -> None:
    assert (addresses.identity(first) == addresses.identity(second)) is same
    assert len(addresses.recipients([first, second])) == 2 - same
