"""How text and lists become recipients, and how addresses and domains are compared.

::

    addresses("ada@example.org; Bob <bob@example.org>", "cc")  # ("ada@example.org", "Bob <bob@example.org>")

Operators, decorator, batch rows, notifier, email backend and client all read their recipients here. Commas, semicolons
and line breaks separate the addresses of a text, except within a quoted display name. An item of a list is one address
and never split. The text that a template makes of a list is read as that list. What cannot be read for certain is an
error.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from email.utils import quote
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.text_fields import CAME_OUT_AS_NONE, header_text

#: Of limited length: looking from each quote for the one that closes it would take quadratic time.
_QUOTED: Final = r'"(?:\\.|[^"\\]){0,500}"'
#: Most addresses: nothing is around them. Saves time in a large batch.
_PLAIN: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)
# A quote that is never closed is an ordinary character: the address that contains it is refused later.
_LISTED: Final = re.compile(rf"(?:{_QUOTED}|[^,;\r\n])+")
_NAMED: Final = re.compile(rf'(?P<name>(?:{_QUOTED}|[^"<>@])*)<(?P<address>[^<>]+)>\s*')
#: What nobody sees: Unicode's default ignorable code points, and blanks that are not white space.
_UNSEEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_EDGE: Final = re.compile(rf"\A[\s,;{_UNSEEN}]+")
#: One pair of quotes around all of a text, with none of them within.
_IN_QUOTES: Final = re.compile(
    r"""(['"`])(?P<text>(?:(?!\1).)+)\1|[\u2018-\u201f](?P<curly>[^\u2018-\u201f]+)[\u2018-\u201f]""", re.DOTALL
)
#: What ``str`` makes of a frozen set, a deque, or the keys of a mapping.
_CALL: Final = re.compile(r"[A-Za-z_][\w.]*\((?P<text>(?:[\[({].*[\])}])?)\)", re.DOTALL)
_QUOTES: Final = "'`\u2018-\u201f\u00ab\u00bb"
_NOT_IN_ADDRESS: Final = re.compile(rf"""[\s@,;:<>()\[\]{{}}"\\{_UNSEEN}]|\A[{_QUOTES}]|[{_QUOTES}]\Z""")
#: Changes the direction of the text that follows: in a display name, it disguises the address.
_TURNING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
#: Characters of a display name that mean something else to a server unless they are quoted.
_SPECIAL: Final = re.compile(r"[\",;:()\[\]\\]")
_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_TO_MANY: Final = (
    "one message goes to one address. To send one each to many, map the task: "
    "FluxomailSendOperator.partial(...).expand(to=[...]); for one email that all of them see, use cc or bcc"
)


def one_address(value: object) -> str:
    """Return ``value`` (text, or a list of one) as the recipient of a message; an error says how to send to many."""
    value = _unwrapped(value)
    items = _items(value, "to")
    if len(items) > 1:
        count = "more than one address" if isinstance(value, str) else f"{len(items)} addresses"
        raise FluxomailValidationError(f"to holds {count}: {_TO_MANY}")
    if not items or items[0] is None or items[0] == "":
        raise FluxomailValidationError("to is empty: give one address")
    return _checked(items[0], "to", cure=_TO_MANY)


def addresses(value: object, field: str) -> tuple[str, ...]:
    """Return the addresses of a text or a list, each of them checked; an error names the item of ``field``."""
    items = _items(value, field)
    return tuple(
        _checked(item, f"{field}[{index}]", cure="give each an item of its own") for index, item in enumerate(items)
    )


def recipients(value: object, field: str = "to") -> list[Any]:
    """Return the addresses of a text or a list that each get a message of their own, each once.

    They are not checked here: one bad address must not keep the message from the others, so the caller that creates the
    messages reports it. Each is an item: ``EmailMessage.of({"to": [recipient], ...})`` does not split it.
    """
    found: dict[object, Any] = {}
    for address in all_addresses(value, field):
        found.setdefault(identity(address) if isinstance(address, str) else id(address), address)
    return list(found.values())


def all_addresses(value: object, field: str) -> list[Any]:
    """Return what :func:`recipients` returns, repeated addresses included."""
    return [item for item in _items(value, field) if not isinstance(item, str) or item.strip()]


def bare_address(text: str) -> str:
    """Return the address of ``Name <address>``, or ``text`` itself; an empty text if it could be read in two ways.

    A guard must judge the address that the server will use: ``a@allowed.example <b@other.example>`` is refused.
    """
    if "<" not in text and ">" not in text:
        return text.strip()
    named = _NAMED.fullmatch(text)
    return named["address"].strip() if named else ""


def header_form(text: str) -> str:
    """Return a checked address as every server reads it: its display name in quotes if it holds a comma or a quote."""
    named = _NAMED.fullmatch(text)
    name = named["name"].strip() if named else ""
    if not name:
        return bare_address(text)
    if re.fullmatch(_QUOTED, name) or not _SPECIAL.search(name):
        return text
    return f'"{quote(name)}" <{bare_address(text)}>'


def normalised(text: str) -> str:
    """Return an address without its display name, case-folded: equal for two spellings of one recipient.

    Idempotency keys depend on it: it must not change. Case folding also makes ``straße.de`` equal to ``strasse.de``:
    to tell whether two addresses are the same, compare :func:`identity`.
    """
    return (bare_address(text) or text).strip().casefold()


def identity(text: str) -> str:
    """Return an address as :func:`normalised` does, but with its domain as :func:`idna_domain` returns it."""
    local, _, domain = normalised(text).rpartition("@")
    return f"{local}@{domain_of(text) or domain}"


def domain_of(text: str) -> str:
    """Return the domain of an address as :func:`idna_domain` does; an empty text if it is no address."""
    _, at, domain = bare_address(text).rpartition("@")
    return idna_domain(domain) if at else ""


def normalised_domain(text: str) -> str:
    """Return a domain in lower case, without a leading ``@`` and a final dot. Stored triggers contain this form."""
    return text.strip().lower().removeprefix("@").rstrip(".")


def idna_domain(text: str) -> str:
    """Return a domain as DNS knows it (IDNA 2008), in lower case; an empty text if it is not a domain.

    ``straße.de`` is ``xn--strae-oqa.de``. ``strasse.de`` may have another owner, so a guard that allows one must not
    allow the other.
    """
    text = text.strip().removeprefix("@").removesuffix(".")
    if not text.isascii():
        import idna

        try:
            text = idna.encode(text, uts46=True).decode()
        except ValueError:
            return ""
    text = text.lower()
    return text if _DOMAIN.fullmatch(text) else ""


def _items(value: object, field: str) -> list[Any]:
    """Return the addresses of a text, or the items of a list, nested ones included."""
    value = _unwrapped(value)
    if value is None:
        return []
    if isinstance(value, str):
        return [_trimmed(part) for part in _LISTED.findall(value) if part.strip()]
    if isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise FluxomailValidationError(f"{field} must be an address or a list of addresses")
    try:
        return [_trimmed(item) if isinstance(item, str) else item for item in _flat(value)]
    except RecursionError:
        raise FluxomailValidationError(f"{field} is nested too deeply: give a list of addresses") from None


def _unwrapped(value: object) -> object:
    """Return the list that a template or a configuration file made this text of; anything else unchanged."""
    while isinstance(value, str) and not _PLAIN.fullmatch(value):
        text = _stripped(value)
        if inner := _IN_QUOTES.fullmatch(text) or _CALL.fullmatch(text):
            value = inner[inner.lastgroup or 0]
            continue
        if not text.startswith(("[", "(", "{")):
            break
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                value = read(text)
                break
        else:
            if text[0] + text[-1] not in ("[]", "()"):
                break
            value = text[1:-1]  # [ada@example.org, bob@example.org]
    return value


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    # The order of a set differs between processes, and the order of copies is part of an email's key.
    for value in sorted(values, key=str) if isinstance(values, set | frozenset) else values:
        item = _unwrapped(value)
        if isinstance(item, list | tuple | set | frozenset):
            yield from _flat(item)
        else:
            yield item


def _stripped(text: str) -> str:
    # Not with a pattern for the end, which takes quadratic time.
    return _EDGE.sub("", _EDGE.sub("", text)[::-1])[::-1]


def _trimmed(text: str) -> str:
    """Return an address without what is harmless around it: white space, quotes, ``mailto:``, invisible characters."""
    before = None
    while before != text and not _PLAIN.fullmatch(text):
        before, text = text, re.sub(r"(?i)\Amailto:", "", _stripped(text)) or text
        if quoted := _IN_QUOTES.fullmatch(text):
            text = quoted[quoted.lastgroup or 0]
        elif named := _NAMED.fullmatch(text):
            inner = _trimmed(named["address"])
            if inner != named["address"].strip():
                text = f"{text[: named.start('address')]}{inner}>"
        elif "@" in text and not text.endswith(".."):
            text = text.removesuffix(".")
    return text


def _checked(value: object, field: str, *, cure: str) -> str:
    """Check what guards and headers depend on, and what templates and copied lists leave. The server checks the rest.

    :param cure: what to do about more than one address.
    """
    text = header_text(value, field).strip()
    bare = bare_address(text)
    local, _, domain = bare.rpartition("@")
    if "None" in (local, domain):
        raise FluxomailValidationError(f"{field} {CAME_OUT_AS_NONE}")
    # A second "@" is part of the name for one parser and of the domain for another. In quotes, anything is allowed.
    plain = "" if re.fullmatch(_QUOTED, local) else local
    why = ""
    if bad := _TURNING.search(text) or _NOT_IN_ADDRESS.search(plain) or _NOT_IN_ADDRESS.search(domain):
        why = f" (it holds {unicodedata.name(bad[0], 'a character')}, U+{ord(bad[0]):04X})"
    elif plain and "" in [*plain.split("."), *domain.split(".")]:
        why = " (it begins or ends with a dot, or holds two in a row)"
    elif domain and not idna_domain(domain):
        why = " (no domain has such a name)"
    elif local and domain:
        # It may be read again, as by dataclasses.replace(), where a comma would split it.
        return header_form(text) if re.search("[,;]", text) else text
    if len(re.findall(r"[^\s@]@[^\s@]", text)) > 1 and ("<" not in text or re.search("[,;]", text)):
        raise FluxomailValidationError(f"{field} holds more than one address: {cure}")
    raise FluxomailValidationError(f"{field} is not an email address{why}: give name@example.com")
