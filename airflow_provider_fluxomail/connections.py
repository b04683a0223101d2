"""An Airflow connection of type ``fluxomail``, read: password, host and extras become settings.

Values come from forms, URIs, JSON and secrets backends, so a number may arrive as text and a list as a comma-separated
one; both are taken.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import math
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail import CONNECTION_FIELDS, __version__, fleet
from airflow_provider_fluxomail.client.addresses import one_address
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.guard import RecipientGuard
from airflow_provider_fluxomail.client.settings import API_VERSION, ClientSettings
from airflow_provider_fluxomail.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FluxomailConnection:
    """What a connection says.

    :param settings: for the client.
    :param idempotency_namespace: part of every derived key.
    :param key_retention_hours: how long Fluxomail remembers a key.
    :param poll_share: the part of the key's cap that waiting may use, above 0 and at most 1.
    """

    settings: ClientSettings
    idempotency_namespace: str = ""
    key_retention_hours: float = 24.0
    poll_share: float = 0.5

    @classmethod
    def of(cls, connection: Connection) -> FluxomailConnection:
        """Read an Airflow connection.

        :raises FluxomailValidationError: names the connection, the field and the cure.
        """
        try:
            return cls._read(connection)
        except FluxomailValidationError as error:
            raise FluxomailValidationError(f"connection {connection.conn_id!r}: {error.message}") from None

    @classmethod
    def _read(cls, connection: Connection) -> FluxomailConnection:
        if connection.conn_type and connection.conn_type != "fluxomail":
            raise FluxomailValidationError(f"its type is {connection.conn_type!r}: make it 'fluxomail'")
        extras = _extras(connection.extra)
        read = _Reader(extras)
        api_version = read("api_version", str, API_VERSION)
        poll_share = read("poll_share", _number, fleet.poll_share())
        if not 0 < poll_share <= 1:
            raise FluxomailValidationError("poll_share must be above 0 and at most 1")
        retention = read("key_retention_hours", _number, 24.0)
        if retention < 0:
            raise FluxomailValidationError("extra key_retention_hours must be 0 or more")
        return cls(
            settings=ClientSettings(
                api_key=connection.password or "",
                base_url=_base_url(connection),
                timeout=read("timeout", _number, 15.0),
                max_attempts=read("max_attempts", _integer, 4),
                max_wait=read("max_wait", _number, fleet.max_wait()),
                api_version="" if api_version == "-" else api_version,
                verify=read("verify", _verify, True),
                proxies=read("proxies", _proxies, {}),
                allow_http=read("allow_http", _boolean, False),
                user_agent=user_agent(),
                observer=Metrics(connection.conn_id or ""),
                guard=RecipientGuard(
                    redirect_to=read("redirect_to", one_address, None),
                    allowed_domains=read("allowed_recipient_domains", _domains, ()),
                ),
            ),
            idempotency_namespace=read("idempotency_namespace", str, ""),
            key_retention_hours=retention,
            poll_share=poll_share,
        )


def user_agent() -> str:
    """Name this package and Airflow, so that Fluxomail's support can tell who calls."""
    from airflow import __version__ as airflow_version

    return f"airflow-provider-fluxomail/{__version__} apache-airflow/{airflow_version}"


def _base_url(connection: Connection) -> str:
    """Put the URL together: a URI connection splits it into host, port and schema."""
    host = connection.host or ""
    if host.count(":") > 1 and "://" not in host and "[" not in host:
        host = f"[{host}]"  # a bare IPv6 address, as Airflow's URI parser leaves it
    if host and "://" not in host and connection.schema in ("http", "https"):
        host = f"{connection.schema}://{host}"
    if host and connection.port:
        scheme, mark, rest = host.rpartition("://")
        address, slash, path = rest.partition("/")
        if not address.rpartition("]")[2].partition(":")[2]:
            host = f"{scheme}{mark}{address}:{connection.port}{slash}{path}"
    return host


def _extras(text: str | None) -> dict[str, Any]:
    """Parse the extras. Parsed here, not by Airflow: its parser swallows errors, and a guard must not vanish."""
    try:
        extras = json.loads(text) if text and text.strip() else {}
    except ValueError:
        extras = None
    if not isinstance(extras, dict):
        raise FluxomailValidationError("its extras are not a JSON object")
    for name in extras:
        if name in CONNECTION_FIELDS:
            continue
        # A misspelt guard would let mail out to everybody.
        guards = any(word in name.lower() for word in ("redirect", "recipient", "allow"))
        if close := difflib.get_close_matches(name, CONNECTION_FIELDS, n=1, cutoff=0.4 if guards else 0.8):
            raise FluxomailValidationError(f"unknown extra {name!r}: did you mean {close[0]!r}?")
        log.warning(
            "The connection's extra %r means nothing to Fluxomail; known: %s.", name, ", ".join(CONNECTION_FIELDS)
        )
    return extras


class _Reader:
    """Reads one extra at a time; an empty form field counts as absent."""

    def __init__(self, extras: dict[str, Any]) -> None:
        self._extras = extras

    def __call__(self, name: str, convert: Callable[[Any], Any], default: Any) -> Any:
        value = self._extras.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return default
        try:
            return convert(value.strip() if isinstance(value, str) else value)
        except FluxomailValidationError as error:
            raise FluxomailValidationError(f"extra {name}: {error.message}") from None
        except (ValueError, TypeError) as error:
            raise FluxomailValidationError(f"extra {name} {error}") from None


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("must be a number")
    return number


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError("must be a whole number")
    return int(number)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("must be true or false")
    return known[str(value).lower()]


def _verify(value: Any) -> bool | str:
    try:
        return _boolean(value)
    except ValueError:
        return str(value)


def _proxies(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise ValueError('must be a JSON object of proxy URLs by scheme, e.g. {"https": "http://proxy:3128"}')
    return value


def _domains(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of domains, or a comma-separated text of them")
    domains = tuple(item.strip().casefold().lstrip("@").rstrip(".") for item in value if item.strip())
    if not domains or not all("." in domain or domain == "localhost" for domain in domains):
        raise ValueError("must hold domains such as example.com")
    return domains
