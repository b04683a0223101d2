"""Run schemathesis with all checks over the sandbox's two APIs: ``make schemathesis``.

Each API has a server of its own, because control calls change what the API responds. ``EXAMPLES`` sets the number of
requests for each operation and phase, ``SEED`` other ones than those of every run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx

from airflow_provider_fluxomail.sandbox import SandboxServer

CONFIG: Final = Path(__file__).parent / "schemathesis.toml"
API_KEY: Final = "schemathesis"
EXAMPLES: Final = 25
SECONDS: Final = 180
"""After which both runs together have failed, with so many examples."""


def run(name: str, paths: str, examples: int, until: float) -> bool:
    """Check the operations whose path matches; return whether nothing was found.

    :param until: the deadline, by the monotonic clock.
    """
    print(f"==> schemathesis: {name}", flush=True)
    with SandboxServer(API_KEY, event_delay=0) as server:
        # So that each event stream has an end.
        httpx.post(f"{server.url}/_sandbox/settings", json={"stream_life": 0.05}).raise_for_status()
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(examples)),
            *("--include-path-regex", paths, "--header", f"Authorization: Bearer {API_KEY}"),
            *(["--seed", os.environ["SEED"]] if os.environ.get("SEED") else []),
        ]
        environment = os.environ | {"SANDBOX_URL": server.url, "SANDBOX_KEY": API_KEY}
        try:
            seconds = max(0.0, until - time.monotonic())
            return subprocess.run(command, check=False, timeout=seconds, env=environment).returncode == 0
        except subprocess.TimeoutExpired:
            print(f"==> schemathesis: {name}: not done in time", flush=True)
            return False


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections to other machines, as an audit hook: the sandbox calls each generated `webhook_url`."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect":
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else str(host)
    if not name.startswith("127."):
        raise OSError(f"{name} is not this machine")


def main() -> int:
    sys.addaudithook(stay_here)
    examples = int(os.environ.get("EXAMPLES") or EXAMPLES)
    until = time.monotonic() + SECONDS * max(1.0, examples / EXAMPLES)
    results = [run("the API", "^/api/v1/", examples, until), run("the control API", "^/_sandbox/", examples, until)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
