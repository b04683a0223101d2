"""Reads the names of a connection's extras: finds every spelling, and never ignores a recipient guard.

The two guards, ``redirect_to`` and ``allowed_recipient_domains``, keep email of a staging system from people. An
ignored guard would let that email out, so a name that suggests a guard but is not one is an error.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.redaction import redact
from airflow_provider_fluxomail.configuration.options import EXTRAS

log = logging.getLogger(__name__)

GUARDS: Final = ("redirect_to", "allowed_recipient_domains")

#: Airflow before 2.3 stored a form's fields as ``extra__fluxomail__redirect_to``; here with single underscores.
_OLD_PREFIX: Final = "extra_fluxomail_"
#: Parts of names that suggest a guard: the extra is meant to hold email back, or to send it elsewhere.
_GUARD_PARTS: Final = (
    *("redir", "reroute", "divert", "forward", "intercept", "override", "catchall"),
    *("recip", "rcpt", "receiver", "addressee", "domain"),
    *("allow", "permit", "whitelist", "safelist", "blacklist", "blocklist", "denylist", "guard", "restrict"),
    *("staging", "sandbox", "dryrun", "testmode", "nosend", "suppress", "blackhole", "mailcatcher"),
    *("sendto", "mailto", "routeto", "deliverto", "testemail", "testmail", "testaddress", "devemail", "debugemail"),
)
#: The same as whole words; as parts, too many other names hold them.
_GUARD_WORDS: Final = frozenset({"to", "cc", "bcc", "only", "block", "deny"})
#: Words with which a misspelt word is compared.
_GUARD_STEMS: Final = (
    *("redirect", "redirection", "recipient", "recipients"),
    *("allowed", "domain", "domains", "whitelist"),
)
#: Similarity (0 to 1) from which one name counts as a misspelling of another.
_ALIKE: Final = 0.8
_ALIKE_GUARD: Final = 0.7
_ALIKE_MEANT: Final = 0.6
_ALIKE_WORD: Final = 0.83
#: A guard in the text of another value: a query or JSON that was written wrongly.
_GUARD_IN_TEXT: Final = re.compile(
    r"(redirect[\W_]*to|allowed[\W_]*recipient[\W_]*domains)[\"']?\s*[=:]", re.IGNORECASE
)


def read_extras(text: str | None) -> dict[str, Any]:
    """Return the known extras of a JSON text under their names, without empty ones.

    Not with Airflow's parser, which hides errors.

    :raises FluxomailValidationError: not a JSON object, an extra is given twice, or a name suggests a guard.
    """
    try:
        given = json.loads(text, object_pairs_hook=_object) if text and text.strip() else {}
    except FluxomailValidationError:
        raise
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise FluxomailValidationError("its extras are not a JSON object")
    found: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for spelling, value in given.items():
        name = known_name(spelling)
        _refuse_hidden_guards(name or spelling, value)
        if name is None:
            _judge_unknown(spelling)
        elif not is_empty(value):
            if name in spelt:
                raise FluxomailValidationError(
                    f"extra {name} is given twice, as {spelt[name]!r} and {spelling!r}: remove one of them"
                )
            found[name], spelt[name] = value, spelling
    return found


def refuse_guard_in(field: str, text: str | None) -> None:
    """Raise a :class:`.FluxomailValidationError` if another field of the connection holds a guard."""
    if text and (guard := _GUARD_IN_TEXT.search(text)):
        raise FluxomailValidationError(
            f"its {field} holds {guard[1]!r}: make that an extra. In a URI, extras are the query after the '?', "
            "separated by '&'"
        )


def is_empty(value: object) -> bool:
    """Return whether an extra counts as absent: a form stores an empty field as null or empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


def known_name(spelling: str) -> str | None:
    """Return the extra that a spelling means: any case, ``-`` or spaces for ``_``, camel case, the old prefix."""
    plain = unicodedata.normalize("NFKC", spelling).strip()
    for form in (plain, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)):
        name = re.sub(r"[\s_.-]+", "_", form).lower()
        if (name := name.removeprefix(_OLD_PREFIX)) in EXTRAS:
            return name
    return None


def _judge_unknown(spelling: str) -> None:
    """Warn of an unknown extra; refuse one that is a misspelt known one, or suggests a guard."""
    plain = _letters(spelling)
    guards = _is_like_a_guard(spelling)
    known = {_letters(name): name for name in EXTRAS}
    close = difflib.get_close_matches(plain, known, n=1, cutoff=_ALIKE)
    if guards and not close:
        close = difflib.get_close_matches(plain, map(_letters, GUARDS), n=1, cutoff=_ALIKE_MEANT)
    if close:
        raise FluxomailValidationError(f"unknown extra {redact(spelling)!r}: did you mean {known[close[0]]!r}?")
    if guards:
        raise FluxomailValidationError(
            f"unknown extra {redact(spelling)!r}: it does not hold email back, only {' and '.join(map(repr, GUARDS))} "
            "do. Use one of them, or remove it"
        )
    log.warning("Unknown connection extra %r ignored; known extras: %s.", redact(spelling), ", ".join(EXTRAS))


def _is_like_a_guard(spelling: str) -> bool:
    plain = _letters(spelling)
    words = [_letters(word) for word in re.split(r"[\W_]+|(?<=[a-z0-9])(?=[A-Z])", spelling)]
    return (
        any(part in plain for part in _GUARD_PARTS)
        or (bool(_GUARD_WORDS.intersection(words)) and words[0] != "reply")
        or any(difflib.get_close_matches(word, _GUARD_STEMS, n=1, cutoff=_ALIKE_WORD) for word in words)
        or bool(difflib.get_close_matches(plain, [_letters(guard) for guard in GUARDS], n=1, cutoff=_ALIKE_GUARD))
    )


def _refuse_hidden_guards(name: str, value: object) -> None:
    """Refuse a guard in the value of another extra: a wrapped object, JSON as text, a query with a wrong separator."""
    for inner in _names_within(value):
        if known_name(inner) or (name not in EXTRAS and _is_like_a_guard(inner)):
            raise FluxomailValidationError(
                f"extra {redact(name)!r} holds {redact(inner)!r}: put that beside {redact(name)!r}, not into it"
            )


def _names_within(value: object) -> Iterator[str]:
    """Yield every name in a value, and every guard in a text."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if guard := _GUARD_IN_TEXT.search(value):
                yield guard[1]
            elif value.lstrip()[:1] in ("{", "[", '"'):
                with contextlib.suppress(ValueError, RecursionError):
                    pending.append(json.loads(value))
        elif isinstance(value, Mapping):
            yield from value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; of two equal names, JSON would silently use the last."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise FluxomailValidationError(f"extra {redact(name)} is given twice: remove one of them")
        made[name] = value
    return made


def _letters(name: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", name).casefold() if sign.isalnum())
