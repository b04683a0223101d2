"""A connection is the same wherever it comes from; the examples of ``docs/operate/connection.md`` are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox

ROOT: Final = Path(__file__).parent.parent.parent
SECTION: Final = (
    (ROOT / "docs" / "operate" / "connection.md").read_text().split("## Ways to create it")[1].split("\n## ")[0]
)
#: Signs that mean something to a shell, a URI and JSON.
KEY: Final = "fm_%2F@:/?#&=+'\"\\$"
#: What all examples make, but for the one with a host.
EXAMPLE: Final = {
    "base_url": "https://api.fluxomail.com",
    "api_key": "YOUR_API_KEY",
    "timeout": 10,
    "idempotency_namespace": "production",
}


def look_up(steps: dict[str, Any], **environment: str) -> list[Any]:
    """Run ``look_up.py``, and return what it showed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.wire.look_up"],
        input=json.dumps(steps),
        # Not the connection that the fixture makes.
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return shown


def assert_sent_by(sandbox: Sandbox, *conn_ids: str) -> None:
    """By each of them, from a thread and from an event loop."""
    sent = [(mail.subject, mail.to.partition("@")[0]) for mail in sandbox.messages()]
    assert sorted(sent) == sorted((conn_id, how) for conn_id in conn_ids for how in ("sync", "async"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


def commands() -> list[list[str]]:
    """The examples for the command line, as a shell would take them apart."""
    lines = [shlex.split(block.replace("\\\n", " ")) for block in blocks("bash") if block.startswith("airflow ")]
    return [[word.replace("$FLUXOMAIL_API_KEY", "YOUR_API_KEY") for word in line[2:]] for line in lines]


def variables() -> list[str]:
    """The examples of the environment variable: their values."""
    found = [shlex.split(block)[1] for block in blocks("bash") if block.startswith("export ")]
    assert all(one.startswith("AIRFLOW_CONN_FLUXOMAIL_DEFAULT=") for one in found)
    return [one.partition("=")[2] for one in found]


#: Of its connections it gives the text alone, as Vault's and the clouds' do.
VAULT: Final = """
from airflow.secrets import BaseSecretsBackend

class Vault(BaseSecretsBackend):
    def __init__(self, **values):
        self.values = values

    def get_conn_value(self, conn_id, team_name=None):
        return self.values.get(conn_id)
"""


@pytest.mark.timeout(300)
def test_command_line_environment_and_a_backend_of_the_users(
    sandbox: Sandbox, airflow_db: Path, tmp_path: Path
) -> None:
    """By parts, JSON, URI and from files, with signs that mean something there; and the documentation's examples.

    All in one process: Airflow takes seconds to start.
    """
    sandbox.key("plain")
    host = quote(sandbox.url, safe="")
    fields = {"conn_type": "fluxomail", "host": sandbox.url, "password": "plain"}
    text, uri = json.dumps(fields), f"fluxomail://:plain@{host}/?max_attempts=2&idempotency_namespace=a%26b"
    files = {
        "file_json.json": json.dumps({"file_json": {**fields, "extra": {"max_attempts": 2}}}),
        "file_yaml.yaml": f"file_yaml:\n  conn_type: fluxomail\n  host: {sandbox.url}\n  password: plain\n",
        "file_env.env": f"file_env={uri}\n",
        "examples.yaml": blocks("yaml")[0],
        "vault_of_the_test.py": VAULT,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    of_parts = ["--conn-type", "fluxomail", "--conn-host", sandbox.url, "--conn-password", "plain"]
    made = {
        "by_parts": ["add", "by_parts", *of_parts, "--conn-extra", '{"timeout": 3, "idempotency_namespace": "n"}'],
        "by_json": ["add", "by_json", "--conn-json", text],
        "by_uri": ["add", "by_uri", "--conn-uri", uri],
        "by_scheme": [
            "add",
            "by_scheme",
            "--conn-uri",
            f"fluxomail://:plain@{sandbox.url.removeprefix('http://')}/http",
        ],
        **{name.partition(".")[0]: ["import", str(tmp_path / name)] for name in list(files)[:3]},
    }
    environment = {
        "env_json": json.dumps({**fields, "extra": {}}),
        "env_text": json.dumps({**fields, "extra": "{}"}),
        "env_uri": f"fluxomail://:plain@{host}/",
        "env_extra": f"fluxomail://:plain@{host}/?__extra__={quote(json.dumps({'verify': True}))}",
    }
    shown_only = {
        "odd_uri": f"fluxomail://:{quote(KEY, safe='')}@/",
        "odd_json": json.dumps({"conn_type": "fluxomail", "password": KEY}),
        **{f"example_{number}": value for number, value in enumerate(variables())},
    }
    kept = {"kept_json": text, "kept_uri": f"fluxomail://:plain@{host}/"}
    assert len(commands()) == 3
    shown = look_up(
        {
            "commands": list(made.values()),
            "examples": [*commands(), ["import", str(tmp_path / "examples.yaml")]],
            "send": [*made, *environment, *kept],
            "show": ["by_parts", "by_uri", *shown_only],
        },
        AIRFLOW__SECRETS__BACKEND="vault_of_the_test.Vault",
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps(kept),
        # No client exchanges its settings for those of the sandbox.
        FLUXOMAIL_TEST_SERVER_URL="",
        PYTHONPATH=os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")])),
        **{f"AIRFLOW_CONN_{name.upper()}": value for name, value in {**environment, **shown_only}.items()},
    )
    assert_sent_by(sandbox, *made, *environment, *kept)
    assert shown[:4] == [EXAMPLE] * 4
    by_parts, by_uri, odd_uri, odd_json, *examples, defaults = shown[4:]
    assert by_parts == {"base_url": sandbox.url, "api_key": "plain", "timeout": 3, "idempotency_namespace": "n"}
    assert by_uri["idempotency_namespace"] == "a&b"
    assert odd_uri["api_key"] == odd_json["api_key"] == KEY
    local = {"base_url": "http://127.0.0.1:8026", "api_key": "fm_sandbox", "timeout": 10, "idempotency_namespace": ""}
    assert examples == [EXAMPLE, EXAMPLE, local]
    assert defaults == ["fluxomail_default"] * 3


@pytest.mark.timeout(300)
def test_airflows_backend_for_files(sandbox: Sandbox, airflow_db: Path, tmp_path: Path) -> None:
    """The example of the documentation, with the file where a test can have it."""
    (text,) = blocks("yaml")
    file = tmp_path / "connections.yaml"
    file.write_text(f"{text}\nlocal:\n  conn_type: fluxomail\n  host: {sandbox.url}\n  password: fm_sandbox\n")
    (ini,) = blocks("ini")
    options = dict(line.split(" = ", 1) for line in ini.strip().splitlines()[1:])
    assert list(json.loads(options["backend_kwargs"])) == ["connections_file_path"]
    shown = look_up(
        {"send": ["local"], "show": ["fluxomail_default"]},
        AIRFLOW__SECRETS__BACKEND=options["backend"],
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"connections_file_path": str(file)}),
        AIRFLOW__FLUXOMAIL__DEFAULT_CONN_ID="mail_production",
        FLUXOMAIL_TEST_SERVER_URL="",
    )
    assert_sent_by(sandbox, "local")
    assert shown == [EXAMPLE, ["mail_production"] * 3], "the second: read when a module is imported"
