"""A local Fluxomail server for demos, tests and CI: the v1 API, its failures, and a clock that can be moved.

It needs the ``sandbox`` extra (``pip install 'airflow-provider-fluxomail[sandbox]'``). Importing this module
imports neither FastAPI nor uvicorn; starting a server does.
"""

from __future__ import annotations

from airflow_provider_fluxomail.sandbox.config import Bounds
from airflow_provider_fluxomail.sandbox.server import SandboxServer, SandboxStartError

__all__ = ["Bounds", "SandboxServer", "SandboxStartError"]
