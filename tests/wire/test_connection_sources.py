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


def look_up(steps: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
    """Run ``look_up.py``, and return what it showed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.wire.look_up"],
        input=json.dumps(steps),
        # Not the connection that the fixture makes.
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return shown


def sent(sandbox: Sandbox) -> list[tuple[str, str]]:
    return sorted((mail.subject, mail.to.partition("@")[0]) for mail in sandbox.messages())


def both(*conn_ids: str) -> list[tuple[str, str]]:
    return sorted((conn_id, how) for conn_id in conn_ids for how in ("sync", "async"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


def commands() -> list[list[str]]:
    """The examples for the command line, as a shell would take them apart."""
    lines = [shlex.split(block.replace("\\\n", " ")) for block in blocks("bash") if block.startswith("airflow ")]
    return [[word.replace("$FLUXOMAIL_API_KEY", "YOUR_API_KEY") for word in line[1:]] for line in lines]


def variables() -> list[str]:
    """The examples of the environment variable: their values."""
    found = [shlex.split(block)[1] for block in blocks("bash") if block.startswith("export ")]
    assert all(one.startswith("AIRFLOW_CONN_FLUXOMAIL_DEFAULT=") for one in found)
    return [one.partition("=")[2] for one in found]


def test_the_command_line(sandbox: Sandbox, airflow_db: Path, tmp_path: Path) -> None:
    """By parts, JSON, URI, and from files; then the examples of the documentation."""
    sandbox.key("plain")
    parts = {"conn_type": "fluxomail", "host": sandbox.url, "password": "plain", "extra": {"max_attempts": 2}}
    uri = f"fluxomail://:plain@{quote(sandbox.url, safe='')}/?max_attempts=2&idempotency_namespace=a%26b"
    with_scheme = f"fluxomail://:plain@{sandbox.url.removeprefix('http://')}/http"
    files = {}
    for name, ending, text in [
        ("file_json", "json", json.dumps({"file_json": parts})),
        ("file_yaml", "yaml", f"file_yaml:\n  conn_type: fluxomail\n  host: {sandbox.url}\n  password: plain\n"),
        ("file_env", "env", f"file_env={uri}\n"),
    ]:
        files[name] = tmp_path / f"{name}.{ending}"
        files[name].write_text(text)
    examples = tmp_path / "connections.yaml"
    (text,) = blocks("yaml")
    examples.write_text(text)
    of_parts = ["--conn-type", "fluxomail", "--conn-host", sandbox.url, "--conn-password", "plain"]
    made = {
        "by_parts": ["add", "by_parts", *of_parts, "--conn-extra", '{"timeout": 3, "idempotency_namespace": "n"}'],
        "by_json": ["add", "by_json", "--conn-json", json.dumps(parts)],
        "by_uri": ["add", "by_uri", "--conn-uri", uri],
        "by_scheme": ["add", "by_scheme", "--conn-uri", with_scheme],
        **{name: ["import", str(path)] for name, path in files.items()},
    }
    assert len(commands()) == 3
    shown = look_up(
        {
            "commands": [["connections", *command] for command in made.values()],
            "examples": [*commands(), ["connections", "import", str(examples)]],
            "send": list(made),
            "show": ["by_parts", "by_uri"],
        }
    )
    assert sent(sandbox) == both(*made)
    assert shown[:4] == [EXAMPLE] * 4
    by_parts, by_uri = shown[4:]
    assert by_parts == {"base_url": sandbox.url, "api_key": "plain", "timeout": 3, "idempotency_namespace": "n"}
    assert by_uri["idempotency_namespace"] == "a&b"


def test_environment_variables(sandbox: Sandbox, airflow_db: Path) -> None:
    """JSON and URI, with signs in the key that mean something there."""
    host = quote(sandbox.url, safe="")
    environment, ids = {}, []
    for name, value in [
        ("env_json", json.dumps({"conn_type": "fluxomail", "host": sandbox.url, "password": "plain", "extra": {}})),
        ("env_text", json.dumps({"conn_type": "fluxomail", "host": sandbox.url, "password": "plain", "extra": "{}"})),
        ("env_uri", f"fluxomail://:plain@{host}/"),
        ("env_extra", f"fluxomail://:plain@{host}/?__extra__={quote(json.dumps({'verify': True}))}"),
    ]:
        environment[f"AIRFLOW_CONN_{name.upper()}"] = value
        ids.append(name)
    sandbox.key("plain")
    environment["AIRFLOW_CONN_ODD_URI"] = f"fluxomail://:{quote(KEY, safe='')}@/"
    environment["AIRFLOW_CONN_ODD_JSON"] = json.dumps({"conn_type": "fluxomail", "password": KEY})
    examples = {f"AIRFLOW_CONN_EXAMPLE_{number}": value for number, value in enumerate(variables())}
    shown = look_up(
        {"send": ids, "show": ["odd_uri", "odd_json", *(f"example_{number}" for number in range(len(examples)))]},
        **environment,
        **examples,
    )
    assert sent(sandbox) == both(*ids)
    assert [one["api_key"] for one in shown[:2]] == [KEY] * 2
    assert shown[2:4] == [EXAMPLE] * 2
    assert shown[4:] == [
        {"base_url": "http://127.0.0.1:8026", "api_key": "fm_sandbox", "timeout": 10, "idempotency_namespace": ""}
    ]


def test_airflows_backend_for_files(sandbox: Sandbox, airflow_db: Path, tmp_path: Path) -> None:
    """The example of the documentation, with the file where a test can have it."""
    sandbox.key("plain")
    (text,) = blocks("yaml")
    file = tmp_path / "connections.yaml"
    file.write_text(f"{text}\nlocal:\n  conn_type: fluxomail\n  host: {sandbox.url}\n  password: plain\n")
    (ini,) = blocks("ini")
    options = dict(line.split(" = ", 1) for line in ini.strip().splitlines()[1:])
    arguments = json.loads(options["backend_kwargs"])
    assert list(arguments) == ["connections_file_path"]
    shown = look_up(
        {"send": ["local"], "show": ["fluxomail_default"]},
        AIRFLOW__SECRETS__BACKEND=options["backend"],
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"connections_file_path": str(file)}),
    )
    assert sent(sandbox) == both("local")
    assert shown == [EXAMPLE]


@pytest.mark.parametrize("form", ["json", "uri"])
def test_a_backend_of_the_users(sandbox: Sandbox, airflow_db: Path, tmp_path: Path, form: str) -> None:
    """Of its connections it gives the text alone, as Vault's and the clouds' do."""
    sandbox.key("plain")
    values = {
        "json": json.dumps({"conn_type": "fluxomail", "host": sandbox.url, "password": "plain"}),
        "uri": f"fluxomail://:plain@{quote(sandbox.url, safe='')}/",
    }
    (tmp_path / "vault_of_the_test.py").write_text(
        "from airflow.secrets import BaseSecretsBackend\n"
        "class Vault(BaseSecretsBackend):\n"
        "    def __init__(self, value):\n"
        "        self.value = value\n"
        "    def get_conn_value(self, conn_id, team_name=None):\n"
        "        return self.value if conn_id == 'kept' else None\n"
    )
    look_up(
        {"send": ["kept"]},
        AIRFLOW__SECRETS__BACKEND="vault_of_the_test.Vault",
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"value": values[form]}),
        PYTHONPATH=os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")])),
    )
    assert sent(sandbox) == both("kept")
