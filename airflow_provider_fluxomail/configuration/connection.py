"""Reads an Airflow connection of type ``fluxomail``: password, host and extras become settings.

Values come from forms, URIs, JSON and secrets backends, so a number may arrive as text, and a list as comma-separated
text. Names, types and defaults of the extras are those of :data:`.OPTIONS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException, get_async_connection
from airflow_provider_fluxomail.client.errors import FluxomailConnectionError, FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard, recipient_domains, redirect_address
from airflow_provider_fluxomail.client.redaction import redact
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.extras import is_empty, read_extras, refuse_guard_in
from airflow_provider_fluxomail.configuration.options import OPTIONS, SECTION
from airflow_provider_fluxomail.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_fluxomail.airflow_compat import Connection

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FluxomailConnection:
    """The settings that a connection holds.

    :param settings: of the client.
    :param idempotency_namespace: part of every derived key.
    :param key_retention_hours: how long Fluxomail remembers a key.
    :param poll_share: the part of the key's rate limit that waiting may use, above 0 and at most 1.
    """

    settings: ClientSettings
    idempotency_namespace: str
    key_retention_hours: float
    poll_share: float

    @classmethod
    @private
    def of(cls, connection: Connection) -> FluxomailConnection:
        """Read an Airflow connection; an error names the connection, the field and how to fix it."""
        try:
            return cls._read(connection)
        except FluxomailValidationError as error:
            raise FluxomailValidationError(f"connection {connection.conn_id!r}: {error.message}") from None

    @classmethod
    def _read(cls, connection: Connection) -> FluxomailConnection:
        if connection.conn_type and connection.conn_type != "fluxomail":
            raise FluxomailValidationError(f"its type is {connection.conn_type!r}: make it 'fluxomail'")
        for field in ("host", "schema", "login", "password"):
            refuse_guard_in(field, getattr(connection, field))
        read = functools.partial(_read_option, read_extras(connection.extra))
        api_version = read("api_version")
        poll_share = read("poll_share")
        if not 0 < poll_share <= 1:
            raise FluxomailValidationError("poll_share must be above 0 and at most 1")
        retention = read("key_retention_hours")
        if retention < 0:
            raise FluxomailValidationError("extra key_retention_hours must be 0 or more")
        return cls(
            settings=ClientSettings(
                api_key=connection.password or "",
                base_url=_base_url(connection),
                timeout=read("timeout"),
                max_attempts=read("max_attempts"),
                max_wait=read("max_wait"),
                api_version="" if api_version == "-" else api_version,
                verify=read("verify"),
                proxies=read("proxies") or {},
                allow_http=read("allow_http"),
                user_agent=user_agent(),
                observer=Metrics(connection.conn_id or ""),
                guard=RecipientGuard(
                    redirect_to=read("redirect_to"), allowed_domains=read("allowed_recipient_domains") or ()
                ),
            ),
            idempotency_namespace=read("idempotency_namespace"),
            key_retention_hours=retention,
            poll_share=poll_share,
        )


async def read_connection(conn_id: str) -> FluxomailConnection:
    """Look a connection up on an event loop, and read it, see :meth:`FluxomailConnection.of`."""
    return FluxomailConnection.of(await get_async_connection(conn_id))


@contextlib.contextmanager
def outages(conn_id: str, *, used_before: bool = True) -> Iterator[None]:
    """Turn errors of a lookup into this package's: what Airflow cannot return now it may return later.

    :param used_before: the connection existed a moment ago. If Airflow does not find it, its database or a secrets
        backend has failed: Airflow takes an error of either for a connection that does not exist.
    :raises FluxomailConnectionError: Airflow could not return it. A retry can help.
    :raises FluxomailValidationError: it does not exist, or is wrong.
    """
    try:
        yield
    except FluxomailError:
        raise
    except Exception as error:
        if isinstance(error, AirflowNotFoundException) and not used_before:
            raise FluxomailValidationError(f"connection {conn_id!r} does not exist: create it") from error
        raise FluxomailConnectionError(
            f"Airflow cannot return connection {conn_id!r}: {redact(str(error)) or type(error).__name__}",
            ambiguous=False,
        ) from error


async def look_up(conn_id: str, *, used_before: bool = False) -> FluxomailConnection:
    """Look a connection up on an event loop for callers that survive an outage of Airflow, see :func:`outages`."""
    with outages(conn_id, used_before=used_before):
        return await read_connection(conn_id)


def user_agent() -> str:
    """Return the ``User-Agent`` header: this package and Airflow, with their versions."""
    from airflow import __version__ as airflow_version

    return f"airflow-provider-fluxomail/{__version__} apache-airflow/{airflow_version}"


def _base_url(connection: Connection) -> str:
    """Join host, port and schema, into which a URI connection splits the URL."""
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


def _read_option(extras: Mapping[str, Any], name: str) -> Any:
    """Return the value of an extra; if it is not set, the option of ``[fluxomail]``, else the default.

    A value that is the built-in default counts as not set, so that ``[fluxomail]`` applies: a connection form may have
    stored the default of every field that was left empty.
    """
    option, value = OPTIONS[name], extras.get(name)
    given = not is_empty(value)
    if given:
        try:
            converted = _CONVERTERS[option.type](value.strip() if isinstance(value, str) else value)
        except FluxomailValidationError as error:
            raise FluxomailValidationError(f"extra {error.message}") from None
        except (ValueError, TypeError) as error:
            raise FluxomailValidationError(f"extra {name} {error}") from None
        if name not in SECTION or converted != option.default:
            return converted
    configured = airflow_cfg.read(name) if name in SECTION else option.default
    if given and configured != option.default:
        log.info(
            "The connection's extra %s is the default, %s, and counts as not set: using [fluxomail] %s = %s.",
            name,
            option.default_text,
            name,
            configured,
        )
    return configured


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
    text = str(value).lower()
    if text not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError("must be true or false")
    return text in ("true", "1", "yes")


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


#: Converts the value of an extra, by the type of its option.
_CONVERTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": str,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "verify": _verify,
    "proxies": _proxies,
    "address": redirect_address,
    "domains": recipient_domains,
}
