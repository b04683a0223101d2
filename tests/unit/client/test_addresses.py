"""How text and lists become recipients: one reader for every face."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client import addresses
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage

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
    (" ; ,", []),
    (None, []),
]


@pytest.mark.parametrize(("value", "found"), LISTS)
def test_recipients_and_copies(value: Any, found: list[Any]) -> None:
    assert addresses.recipients(value) == found
    message = EmailMessage.of({"to": "o@x.org", "subject": "Hi", "content": "x", "cc": value, "bcc": value})
    assert list(message.cc) == list(message.bcc) == found


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
def test_each_recipient_is_one_and_none_costs_another_the_message(value: Any, found: list[Any]) -> None:
    assert addresses.recipients(value) == found


@pytest.mark.parametrize("value", [5, {"a@x.org": 1}, b"a@x.org", True])
def test_what_is_no_list_of_addresses(value: Any) -> None:
    for read in (addresses.recipients, lambda value: addresses.addresses(value, "to")):
        with pytest.raises(FluxomailValidationError, match="to must be an address or a list of addresses"):
            read(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a@x.org", "b@x.org; nobody"], "cc[1] is not an e-mail address (it holds SEMICOLON, U+003B)"),
        (["a@x.org", "b@x.org; c@x.org"], "cc[1] holds more than one address: give each an item of its own"),
        (["a@x.org", " ; "], "cc[1] is not an e-mail address"),
        ("a@x.org; nobody", "cc[1] is not an e-mail address"),
        (["a@x.org", ""], "cc[1] is empty"),
        (["a@x.org", None], "cc[1] must be text"),
        ("a@x.org;\nb@x.org", "cc holds a line break"),
    ],
)
def test_a_copy_that_is_not_an_address(value: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        EmailMessage(to="o@x.org", subject="Hi", content="x", cc=value)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("value", ["a@x.org; ", "a@x.org,", ["a@x.org"], ["a@x.org;"], "['a@x.org']", [["a@x.org"]]])
def test_one_recipient(value: Any) -> None:
    assert EmailMessage(to=value, subject="Hi", content="x").to == "a@x.org"


def test_a_name_with_a_comma_is_one_item_of_a_list() -> None:
    message = EmailMessage.of({"to": ["Doe, Jane <j@x.org>"], "subject": "Hi", "content": "x"})
    assert message.to == "Doe, Jane <j@x.org>"


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
