"""The marker, the fixture of options and the scope of ``fluxomail_sandbox``, in a user's project."""

from __future__ import annotations

from typing import Any

import pytest

from .test_pytest_plugin import WITHOUT

HEAD = """
    import httpx
    import pytest

    def post(sandbox, to="ops@example.org"):
        body = {"to": to, "subject": "Load done", "content": "20 rows"}
        return httpx.post(f"{sandbox.url}/api/v1/emails/send", json=body, headers={"x-api-key": sandbox.api_key})
"""


def run(pytester: pytest.Pytester, tests: str, *options: str, **outcomes: int) -> Any:
    # With pytester's home of its own.
    pytester.makepyfile(HEAD + tests)
    result = pytester.runpytest_subprocess(*WITHOUT, *options)
    result.assert_outcomes(**outcomes)
    return result


def test_markers_and_options(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def fluxomail_sandbox_options():
            return {"default_outcome": "never", "page_size": 7}
        """
    )
    run(
        pytester,
        """
    pytestmark = pytest.mark.fluxomail_sandbox(page_size=8)

    def test_options(fluxomail_sandbox):
        assert post(fluxomail_sandbox).status_code == 200
        assert fluxomail_sandbox.message().event_types == ["sent"]
        assert fluxomail_sandbox.settings()["page_size"] == 8
        assert fluxomail_sandbox.settings()["event_delay"] == 0

    @pytest.mark.fluxomail_sandbox(event_delay=60, default_outcome="bounced", page_size=9)
    def test_marker(fluxomail_sandbox):
        for _ in range(2):
            post(fluxomail_sandbox)
            assert fluxomail_sandbox.message().event_types == ["sent"]
            fluxomail_sandbox.advance(60)
            assert fluxomail_sandbox.message().event_types == ["sent", "bounced"]
            assert fluxomail_sandbox.settings()["page_size"] == 9
            fluxomail_sandbox.reset()

    @pytest.mark.fluxomail_sandbox(host="localhost", api_key="own", allow_hosts=["mail"])
    class TestServer:
        def test_one(self, fluxomail_sandbox):
            type(self).url = fluxomail_sandbox.url
            assert fluxomail_sandbox.url.startswith("http://localhost:")
            assert fluxomail_sandbox.api_key == "own"
            assert post(fluxomail_sandbox).status_code == 200
            assert httpx.get(f"{fluxomail_sandbox.url}/_sandbox/health", headers={"Host": "mail"}).status_code == 200

        def test_two(self, fluxomail_sandbox):
            assert fluxomail_sandbox.url == self.url, "it is the same server"
            fluxomail_sandbox.assert_sent(0)

        @pytest.mark.fluxomail_sandbox(host="0.0.0.0")
        def test_for_containers(self, fluxomail_sandbox):
            assert fluxomail_sandbox.url.startswith("http://127.0.0.1:")
            assert post(fluxomail_sandbox).status_code == 200

    class TestOverride:
        @pytest.fixture
        def fluxomail_sandbox_options(self):
            return {"api_key": "overridden"}

        def test_it(self, fluxomail_sandbox):
            assert fluxomail_sandbox.api_key == "overridden"

    def test_back(fluxomail_sandbox):
        assert fluxomail_sandbox.api_key == "fm_sandbox"
        assert fluxomail_sandbox.url != TestServer.url
""",
        "--strict-markers",
        passed=7,
    )


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("event_dely=1", "unknown field event_dely: the fields are event_delay"),
        ("event_delay=-1", "event_delay"),
        ("60", "takes options by name, such as event_delay=60"),
        ("port=-1", "port must be between 0 and 65535"),
        ("host='nowhere.invalid'", "unknown host 'nowhere.invalid'"),
        ("data=3.5", "fluxomail_sandbox"),
    ],
)
def test_a_wrong_option_is_named(pytester: pytest.Pytester, marker: str, text: str) -> None:
    tests = f"""
    @pytest.mark.fluxomail_sandbox({marker})
    def test_it(fluxomail_sandbox):
        pass

    def test_other(fluxomail_sandbox):
        pass
"""
    result = run(pytester, tests, passed=1, errors=1)
    result.stdout.fnmatch_lines(f"*{text}*")
    assert "Traceback" not in result.stdout.str()


SCOPES = """
    def count(sandbox):
        post(sandbox)
        return len(sandbox.messages())

    def test_1(fluxomail_sandbox):
        assert count(fluxomail_sandbox) == EXPECTED[0]

    def test_2(fluxomail_sandbox):
        assert count(fluxomail_sandbox) == EXPECTED[1]

    class TestIt:
        def test_3(self, fluxomail_sandbox):
            assert count(fluxomail_sandbox) == EXPECTED[2]

        def test_4(self, fluxomail_sandbox):
            assert count(fluxomail_sandbox) == EXPECTED[3]
"""


@pytest.mark.parametrize(
    ("scope", "first", "second"),
    [
        ("function", (1, 1, 1, 1), (1, 1, 1, 1)),
        ("class", (1, 1, 1, 2), (1, 1, 1, 2)),
        ("module", (1, 2, 3, 4), (1, 2, 3, 4)),
        ("session", (1, 2, 3, 4), (5, 6, 7, 8)),
    ],
)
def test_how_long_a_sandbox_lasts(pytester: pytest.Pytester, scope: str, first: Any, second: Any) -> None:
    pytester.makeini(f"[pytest]\nfluxomail_sandbox_scope = {scope}\n")
    pytester.makepyfile(test_a=f"{HEAD}\n    EXPECTED = {first}\n{SCOPES}")
    run(pytester, f"\n    EXPECTED = {second}\n{SCOPES}", passed=8)


def test_a_marker_that_would_change_nothing_is_an_error(pytester: pytest.Pytester) -> None:
    tests = """
    pytestmark = pytest.mark.fluxomail_sandbox(page_size=8)

    @pytest.mark.fluxomail_sandbox(event_delay=60)
    def test_one(fluxomail_sandbox):
        pass

    def test_two(fluxomail_sandbox):
        assert fluxomail_sandbox.settings()["page_size"] == 8
"""
    result = run(pytester, tests, "-o", "fluxomail_sandbox_scope=module", passed=1, errors=1)
    result.stdout.fnmatch_lines("*marker fluxomail_sandbox of a function changes nothing with*scope = module*")


def test_an_unknown_scope(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*WITHOUT, "-o", "fluxomail_sandbox_scope=suite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        "*fluxomail_sandbox_scope must be one of function, class, module, session, not 'suite'*"
    )
