"""Keeps secrets and messages out of tracebacks with local variables, as Sentry and rich print them.

::

    settings = ClientSettings(api_key="fm_secret")  # settings.api_key is a Secret: its repr is ***


    @private
    def read(fields: Mapping[str, Any]) -> EmailMessage: ...  # an error of it shows none of the fields
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Secret(str):
    """Text whose ``repr`` is blank, and that of its parts: formatters cut a long text before they print it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: Any) -> Secret:
        return Secret(super().__getitem__(index))


def private(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Keep the variables of a function, and of all that it calls, out of the tracebacks of its errors.

    The function may be a coroutine or a generator. An error that is not this package's gets a note of where it was
    raised.
    """
    wrapper: Any

    if inspect.isgeneratorfunction(function):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return (yield from function(*args, **kwargs))
            except Exception as caught:  # noqa: BLE001 - raised below
                error = _without_frames(caught)
            del args, kwargs
            raise error

    elif inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001 - raised below
                error = _without_frames(caught)
            del args, kwargs
            raise error

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001 - raised below
                error = _without_frames(caught)
            del args, kwargs
            raise error

    wrapped: Callable[_P, _T] = functools.wraps(function)(wrapper)
    return wrapped


def private_init(made: type[_T]) -> type[_T]:
    """Keep the values that a class is created with out of the tracebacks of errors in them."""
    setattr(made, "__init__", private(made.__init__))  # noqa: B010 - type checkers take it for a mistake
    return made


def place_of(error: BaseException) -> str:
    """Return the file and line where an error was raised, with a space before; empty if that is unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _without_frames(error: Exception) -> Exception:
    from airflow_provider_fluxomail.client.errors import FluxomailError

    if not isinstance(error, FluxomailError) and not hasattr(error, "__notes__"):
        error.add_note(f"raised{place_of(error)}")
    links: list[BaseException | None] = [error]
    for link in links:
        if link is not None and link.__traceback__ is not None:
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
    return error
