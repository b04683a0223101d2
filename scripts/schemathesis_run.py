"""Run schemathesis with all checks over the sandbox's two APIs: ``make schemathesis``.

Each API has a server of its own, because control calls change what the API responds. ``EXAMPLES`` sets the number of
requests for each operation and phase.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from airflow_provider_fluxomail.sandbox import SandboxServer

CONFIG: Final = Path(__file__).parent / "schemathesis.toml"
API_KEY: Final = "schemathesis"
SECONDS: Final = 600
"""After which a run has failed."""


def run(name: str, paths: str, examples: str, *further: str) -> bool:
    """Check the operations whose path matches; return whether nothing was found."""
    print(f"==> schemathesis: {name}", flush=True)
    with SandboxServer(API_KEY, event_delay=0) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", examples),
            *("--include-path-regex", paths, "--header", f"Authorization: Bearer {API_KEY}", *further),
        ]
        return subprocess.run(command, check=False, timeout=SECONDS).returncode == 0


def main() -> int:
    examples = os.environ.get("EXAMPLES", "25")
    # A stream has no end, which schemathesis waits for: tests/sandbox/test_openapi.py checks its responses.
    results = [
        run("the API", "^/api/v1/", examples, "--exclude-path", "/api/v1/events/stream"),
        run("the control API", "^/_sandbox/", examples),
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
