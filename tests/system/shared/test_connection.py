"""The test button: on the API server, on a worker (from Airflow 3.3 on), and on the command line."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import pytest

from scripts.testbed.sandbox import API_KEY
from tests.system.airflows import AIRFLOW_2
from tests.system.shared.scene import LIMIT, Scene

pytestmark = pytest.mark.timeout(3 * LIMIT)

WRONG_KEY: Final = "fm_a_key_that_nobody_has"


def on_the_api_server(scene: Scene, connection: dict[str, Any]) -> tuple[bool, str]:
    """What the button of the UI does."""
    response = scene.airflow.call("POST", "connections/test", json={"connection_id": "probe", **connection})
    return response["status"], response["message"]


def on_a_worker(scene: Scene, connection: dict[str, Any]) -> tuple[bool, str]:
    """What the UI may do where only workers reach Fluxomail."""
    asked = scene.airflow.call("POST", "connections/enqueue-test", json={"connection_id": "probe", **connection})
    headers = {"Airflow-Connection-Test-Token": asked["token"]}
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(scene.airflow.call("GET", "connections/enqueue-test", headers=headers))
        return found["state"] in ("success", "failed")

    scene.until("the connection is tested", ended)
    return found["state"] == "success", found["result_message"]


@pytest.mark.parametrize("button", [on_the_api_server, *([] if AIRFLOW_2 else [on_a_worker])])
def test_the_button(scene: Scene, button: Callable[[Scene, dict[str, Any]], tuple[bool, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    good: dict[str, Any] = {"conn_type": "fluxomail", "host": scene.sandbox.url, "password": API_KEY}
    responses = {
        "good": button(scene, good),
        "wrong key": button(scene, {**good, "password": WRONG_KEY}),
        "unreachable": button(scene, {**good, "host": closed, "extra": '{"timeout": 2}'}),
        "misspelt": button(scene, {**good, "extra": '{"redirect_too": "staging@example.org"}'}),
    }
    assert responses["good"] == (True, "The API key is accepted, and may read sends.")
    for name, words in [
        ("wrong key", "The API key is not accepted"),
        ("unreachable", "Fluxomail cannot be reached"),
        ("misspelt", "did you mean 'redirect_to'?"),
    ]:
        ok, text = responses[name]
        assert not ok
        assert words in text, (name, text)
    for _, text in responses.values():
        assert API_KEY not in text
        assert WRONG_KEY not in text
    assert scene.logs_with(WRONG_KEY) == []


def test_the_command_line(scene: Scene) -> None:
    before = set(scene.airflow.logs.glob("command-*.log"))
    scene.airflow.command("connections", "test", "fluxomail_default", timeout=LIMIT)
    (log,) = set(scene.airflow.logs.glob("command-*.log")) - before
    assert "Connection success!" in log.read_text()
    assert API_KEY not in log.read_text()
