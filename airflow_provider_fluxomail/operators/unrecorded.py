"""Bodies that Airflow does not store."""

from __future__ import annotations


class Unrecorded:
    """A templated text that Airflow does not store.

    Airflow keeps the rendered value of every templated field in its database and shows it in the UI. Wrapped in
    this, a body is rendered and sent, but ``***`` is what is kept: ``content=Unrecorded("Your code: {{ ... }}")``.

    :param text: the text. (templated)
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "***"


def unwrap(body: str | Unrecorded | None) -> str | None:
    """Return the text of a body."""
    return body.text if isinstance(body, Unrecorded) else body
