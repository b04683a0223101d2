"""How text and lists become recipients, and how addresses and domains are normalised.

::

    addresses("ada@example.org; Bob <bob@example.org>", "cc")  # ("ada@example.org", "Bob <bob@example.org>")

Operators, decorator, batch rows, notifier, email backend and client all read their recipients here. Commas and
semicolons separate the addresses of a text, except within a quoted display name. An item of a list is one address, or
several whole ones.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.text_fields import header_text

_QUOTED: Final = r'"(?:\\.|[^"\\])*"'
# A quote that is never closed is an ordinary character: the address that contains it is refused later.
_LISTED: Final = re.compile(rf"(?:{_QUOTED}|[^,;])+")
_NAMED: Final = re.compile(rf'\s*(?:{_QUOTED}|[^"<>@]*)\s*<(?P<address>[^<>]+)>\s*')
_TO_MANY: Final = (
    "one message goes to one address. To send one each to many, map the task: "
    "FluxomailSendOperator.partial(...).expand(to=[...]); for one email that all of them see, use cc or bcc"
)


def one_address(value: object) -> str:
    """Return ``value`` (text, or a list of one) as the recipient of a message; an error says how to send to many."""
    items = _items(value)
    if items is None:
        items = [value]
    if len(items) > 1:
        raise FluxomailValidationError(f"to holds {len(items)} addresses: {_TO_MANY}")
    if not items or items[0] is None or items[0] == "":
        raise FluxomailValidationError("to is empty: give one address")
    text = header_text(items[0], "to")
    parts = _split(text) if isinstance(value, str) else _several(text)
    if len(parts) > 1 or (text.count("@") > 1 and re.search(r"\s", text) and "<" not in text):
        raise FluxomailValidationError(f"to holds more than one address: {_TO_MANY}")
    return _checked(parts[0] if parts else text, "to")


def addresses(value: object, field: str) -> tuple[str, ...]:
    """Return the addresses of a text or a list, each of them checked; an error names the item of ``field``."""
    items = _items(value)
    if items is None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return ()
        if not isinstance(value, str):
            raise FluxomailValidationError(f"{field} must be an address or a list of addresses")
        items = _split(header_text(value, field))
    found: list[str] = []
    for index, item in enumerate(items):
        name = f"{field}[{index}]"
        text = header_text(item, name)
        found += [_checked(part, name) for part in _several(text) or [text]]
    return tuple(found)


def recipients(value: object, field: str = "to") -> list[Any]:
    """Return the addresses of a text or a list that each get a message of their own, each once.

    They are not checked here: one bad address must not keep the message from the others, so the caller that creates the
    messages reports it.
    """
    found: dict[object, Any] = {}
    for address in all_addresses(value, field):
        found.setdefault(normalised(address) if isinstance(address, str) else id(address), address)
    return list(found.values())


def all_addresses(value: object, field: str) -> list[Any]:
    """Return what :func:`recipients` returns, repeated addresses included."""
    items = _items(value)
    if items is not None:
        return [part for item in items for part in (_several(item) if isinstance(item, str) else [item])]
    if value is None:
        return []
    if not isinstance(value, str):
        raise FluxomailValidationError(f"{field} must be an address or a list of addresses")
    return list(_split(value))


def bare_address(text: str) -> str:
    """Return the address of ``Name <address>``, or ``text`` itself; an empty text if it could be read in two ways.

    A guard must judge the address that the server will use: ``a@allowed.example <b@other.example>`` is refused.
    """
    if "<" not in text and ">" not in text:
        return text.strip()
    named = _NAMED.fullmatch(text)
    return named["address"].strip() if named else ""


def normalised(text: str) -> str:
    """Return an address without its display name, case-folded: equal for two spellings of one recipient.

    Idempotency keys and the check of replays depend on it: it must not change.
    """
    return (bare_address(text) or text).strip().casefold()


def domain_of(text: str) -> str:
    """Return the domain of an address as :func:`normalised_domain` does; an empty text if it is no address."""
    _, at, domain = bare_address(text).rpartition("@")
    return normalised_domain(domain) if at else ""


def normalised_domain(text: str) -> str:
    """Return a domain in lower case, without a leading ``@`` and a final dot.

    Unlike addresses, domains are not case-folded: ``straße.de`` and ``strasse.de`` may have different owners, and a
    guard that allows one must not allow the other.
    """
    return text.strip().lower().removeprefix("@").rstrip(".")


def _items(value: object) -> list[Any] | None:
    """Return the items of a list, nested ones included; ``None`` if the value is not a list."""
    if isinstance(value, str) and value.strip().startswith("["):
        # A template turns a list into this text in a Dag that does not render native objects.
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        return None
    return list(_flat(value))


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for item in values:
        if isinstance(item, list | tuple | set | frozenset):
            yield from _flat(item)
        else:
            yield item


def _split(text: str) -> list[str]:
    """Split at commas and semicolons, but not within a quoted display name."""
    return [part.strip() for part in _LISTED.findall(text) if part.strip()]


def _several(item: str) -> list[str]:
    """Return the addresses of a list's item: one, unless each of its parts is an address."""
    parts = _split(item)
    return parts if all("@" in part for part in parts) else [item.strip()]


def _checked(text: str, field: str) -> str:
    """Check only what guards and headers depend on: the server checks the rest of the syntax."""
    text = text.strip()
    local, _, domain = bare_address(text).rpartition("@")
    # A second "@" is part of the name for one parser and of the domain for another.
    two = "@" in local and not re.fullmatch(_QUOTED, local)
    if not local or not domain or two or re.search(r"[\s,;<>]", local + domain):
        raise FluxomailValidationError(f"{field} is not an e-mail address: give name@example.com")
    return text
