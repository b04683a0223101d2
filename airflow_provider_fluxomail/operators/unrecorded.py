"""Bodies that Airflow does not store."""

from __future__ import annotations


class Unrecorded:
    """A templated text that Airflow does not store.

    >>> FluxomailSendOperator(
    ...     task_id="code", to="ada@example.org", subject="Your code", content=Unrecorded("It is {{ params.code }}.")
    ... ).content
    ***

    Airflow stores the rendered value of every templated field in its database and shows it in the UI. A body in this
    wrapper is rendered and sent, but ``***`` is stored.

    :param text: the text. (templated)
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "***"


def unwrap(body: str | Unrecorded | None) -> str | None:
    """Return the text of a body."""
    return body.text if isinstance(body, Unrecorded) else body
