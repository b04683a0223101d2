"""The fixtures that promises share with the tests over real HTTP."""

from tests.wire.conftest import call, serve

__all__ = ["call", "serve"]
