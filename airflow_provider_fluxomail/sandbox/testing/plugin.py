"""The pytest fixture ``fluxomail_sandbox``: a local Fluxomail server, and an Airflow connection to it.

pytest imports this module in every project that has the package installed, so it imports nothing but the standard
library and pytest; the rest is imported when a test uses the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
    from airflow_provider_fluxomail.sandbox.testing.servers import Servers

    Scope = Literal["function", "class", "module", "session"]

_NAME: Final = "fluxomail_sandbox"
_SCOPE: Final = "fluxomail_sandbox_scope"
_SCOPES: Final = ("function", "class", "module", "session")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = f"How long a {_NAME} lasts: {', '.join(_SCOPES)}. It is fresh at the start of each."
    parser.addini(_SCOPE, text, default="function")


def pytest_configure(config: pytest.Config) -> None:
    text = f"{_NAME}(**options): switches of the sandbox, and arguments of its server, such as host"
    config.addinivalue_line("markers", text)
    if config.getini(_SCOPE) not in _SCOPES:
        raise pytest.UsageError(f"{_SCOPE} must be one of {', '.join(_SCOPES)}, not {config.getini(_SCOPE)!r}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Import the server before a test freezes the clock: not all modules can be imported under freezegun."""
    if any(_NAME in getattr(item, "fixturenames", ()) for item in session.items):
        try:
            from airflow_provider_fluxomail.sandbox.app import openapi_document

            # Building it once is what imports everything, pydantic's lazy modules too.
            openapi_document()
        except ImportError:
            pass  # The fixture says what to install.


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker that would change nothing: the sandbox may be older than the test."""
    scope = item.config.getini(_SCOPE)
    for node, mark in item.iter_markers_with_node(_NAME):
        if mark.args:
            pytest.fail(f"the marker {_NAME} takes options by name, such as event_delay=60", pytrace=False)
        kind = "function" if node is item else "class" if isinstance(node, pytest.Class) else "module"
        if _SCOPES.index(kind) < _SCOPES.index(scope):
            pytest.fail(
                f"the marker {_NAME} of a {kind} changes nothing with {_SCOPE} = {scope}: use the fixture "
                f"{_NAME}_options, or call {_NAME}.settings()",
                pytrace=False,
            )


def _scope(fixture_name: str, config: pytest.Config) -> Scope:  # noqa: ARG001
    return cast("Scope", config.getini(_SCOPE))


@pytest.fixture(scope="session")
def _fluxomail_servers() -> Iterator[Servers]:
    """The servers of this process, for all tests; each starts when a test needs it."""
    from airflow_provider_fluxomail.sandbox.testing.servers import Servers

    with Servers() as servers:
        yield servers


@pytest.fixture(scope="session")
def fluxomail_sandbox_options() -> dict[str, Any]:
    """Options of :func:`fluxomail_sandbox`: switches of the sandbox, and arguments of its server. Override it::

    @pytest.fixture(scope="session")
    def fluxomail_sandbox_options():
        return {"event_delay": 0.5, "timeline_form": "spec", "host": "localhost"}
    """
    return {}


@pytest.fixture(scope=_scope)
def fluxomail_sandbox(
    request: pytest.FixtureRequest, fluxomail_sandbox_options: dict[str, Any], _fluxomail_servers: Servers
) -> Iterator[FluxomailSandbox]:
    """A fresh Fluxomail sandbox, the Airflow connection ``fluxomail_default`` to it, and no way to another Fluxomail.

    ::

        def test_the_alert_is_sent(fluxomail_sandbox):
            message = {"to": "ops@example.org", "subject": "Load failed", "content": "See the log."}
            FluxomailHook().send(message, idempotency_key="load-1")
            assert fluxomail_sandbox.message("ops@example.org").subject == "Load failed"

    The server is shared by all tests of the session (with pytest-xdist: of the worker) and reset for each of them; the
    setting ``fluxomail_sandbox_scope`` of pytest makes a sandbox last for a class, a module or the session. Messages
    are delivered at once. The marker ``fluxomail_sandbox`` and the fixture ``fluxomail_sandbox_options`` change that,
    any switch, and the server's arguments.

    The connection is in the environment, as ``AIRFLOW_CONN_FLUXOMAIL_DEFAULT``, until the end. Its ``timeout`` is 10
    seconds. Requests to 127.0.0.1 bypass any proxy. Any other connection of type ``fluxomail``, and any client, uses
    the sandbox too, or fails before a request, also in subprocesses: ``FLUXOMAIL_TEST_SERVER_URL`` is set.

    Needs the ``sandbox`` extra: ``pip install 'airflow-provider-fluxomail[sandbox]'``.

    .. seealso:: :doc:`/guides/sandbox`

    :return: a :class:`~airflow_provider_fluxomail.sandbox.testing.FluxomailSandbox`.
    """
    options = dict(fluxomail_sandbox_options)
    for mark in reversed(list(request.node.iter_markers(_NAME))):  # the nearest wins
        options |= mark.kwargs
    with pytest.MonkeyPatch.context() as patch:
        try:
            sandbox = _fluxomail_servers.open(options, patch)
        except ImportError as error:
            pytest.fail(f"{error} ({error.__cause__})", pytrace=False)
        except (ValueError, TypeError) as error:
            pytest.fail(f"{_NAME}: {error}", pytrace=False)
        yield sandbox
