"""Write ``docs/openapi.json`` as the sandbox serves it: ``python -m scripts.openapi``."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from airflow_provider_fluxomail.sandbox import SandboxServer

TARGET = Path(__file__).parent.parent / "docs" / "openapi.json"


def served() -> str:
    """The document of a fresh sandbox, as it is kept."""
    with SandboxServer() as sandbox:
        answer = httpx.get(f"{sandbox.url}/openapi.json", trust_env=False).raise_for_status()
    return json.dumps(answer.json(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(served(), encoding="utf-8")
    print(f"{TARGET}: written")
