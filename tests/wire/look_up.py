"""Makes connections on Airflow's command line and sends by them, in a process of its own.

``python -m tests.wire.look_up < steps.json``, where the steps are

* ``commands``: command lines of ``airflow connections``,
* ``examples``: such that make ``fluxomail_default``, which is shown and deleted again after each,
* ``send``: ids of connections to send by, from a thread and from an event loop,
* ``show``: ids of connections to show.

The last line of stdout is JSON: what was shown, and the connections of a hook and tasks that name none.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

# As in the scheduler: elsewhere, Airflow 3 gets connections from an API server.
os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")

from airflow.cli import cli_parser

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor


def run(*command: str) -> None:
    """Run a command line of ``airflow connections``."""
    arguments = cli_parser.get_parser().parse_args(["connections", *command])
    arguments.func(arguments)


def send(conn_id: str) -> None:
    """Send a message from a worker's thread, and one from an event loop."""
    message = {"subject": conn_id, "content": "Text"}
    hook = FluxomailHook(conn_id)
    hook.send(message | {"to": "sync@example.org"}, idempotency_key=f"{conn_id}:sync")
    hook.close()
    asyncio.run(FluxomailHook(conn_id).asend(message | {"to": "async@example.org"}, idempotency_key=f"{conn_id}:async"))


def show(conn_id: str) -> dict[str, Any]:
    """What a connection says."""
    options = FluxomailHook(conn_id).get_options()
    shown = {name: getattr(options.settings, name) for name in ("base_url", "api_key", "timeout")}
    return {**shown, "idempotency_namespace": options.idempotency_namespace}


def defaults() -> list[str]:
    """The connections that the section ``[fluxomail]`` gives those that name none."""
    send = FluxomailSendOperator(task_id="send", to="ops@example.org", subject="Hi", content="Text")
    wait = FluxomailDeliverySensor(task_id="wait", send_id="s1")
    return [one.fluxomail_conn_id for one in (FluxomailHook(), send, wait)]


def main() -> None:
    steps = {"commands": [], "examples": [], "send": [], "show": [], **json.load(sys.stdin)}
    shown: list[Any] = []
    for command in steps["commands"]:
        run(*command)
    for command in steps["examples"]:
        run(*command)
        shown.append(show("fluxomail_default"))
        run("delete", "fluxomail_default")
    for conn_id in steps["send"]:
        send(conn_id)
    shown += [show(conn_id) for conn_id in steps["show"]]
    sys.stdout.write("\n" + json.dumps([*shown, defaults()]) + "\n")


if __name__ == "__main__":
    main()
