"""Which of several messages of one name a call sends: its position in the try of the task.

Code in a task that sends several messages to one recipient names none of them, so the first, second, ... message of
each try is the same one. A call that fails does not use its position up: the next one with this content is its retry.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailConnectionError, FluxomailIdempotencyConflictError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context

_POSITIONS: Final = "fluxomail_positions"
_CLAIMING: Final = threading.Lock()
_NAME_THEM: Final = (
    "give each message to the recipient a part (FluxomailHook.send(..., part='invoice-7')), an idempotency_key, or for "
    "operators a task_id of its own"
)


class Position:
    """The position of one call. Use it as a context manager around the call, to record how the call ended.

    :ivar ordinal: 0 for the first message of its name in this try.
    :ivar of_task: whether the message is the running task's own, whose key names no position.
    :ivar another_subject: whether Fluxomail has stored another subject under the position's key.
    :ivar recorded: the content that an earlier try recorded for the position; empty if unknown.
    """

    def __init__(self, ordinal: int, content: object) -> None:
        self.ordinal = ordinal
        self.recorded = ""
        self.of_task = False
        self.another_subject = False
        self.in_doubt = False
        self._content = content
        self._failed = False

    @property
    def content(self) -> str:
        """A digest of the message; empty for a batch, and for the task's own message."""
        return self._content if isinstance(self._content, str) and not self.of_task else ""

    def took_place_of(self, content: object) -> bool:
        """Return whether an earlier try sent a message with this content here, and this try another one."""
        return bool(self.recorded and self.content and self.recorded != self.content) and self.recorded == content

    def __enter__(self) -> Position:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._failed = kind is not None
        # Interrupted or cancelled, a request may have been processed as well.
        doubtful = kind is not None and getattr(error, "ambiguous", not issubclass(kind, Exception))
        self.in_doubt = self._failed and (self.in_doubt or doubtful)

    def is_retried_by(self, content: object) -> bool:
        """Return whether a call with this content repeats the one that failed here, and count it as begun if so.

        The task's own message is also the same one if the task runs again after it was sent.
        """
        try:
            again = (self._failed or self.of_task) and bool(self._content == content)
        except Exception:  # noqa: BLE001 - such as a comparison of arrays
            return False
        self._failed = self._failed and not again
        return again


class _Positions(defaultdict[str, list[Position]]):
    """The positions of a try by name; kept in its context."""

    def __init__(self, ti: object) -> None:
        super().__init__(list)
        #: What the try belongs to: its task instance, and the operator that is the task in a context that names none.
        self.owner = [ti, None]
        self.of_task: Position | None = None


def claim(context: Context, name: str, content: object, *, of_task: object = None, resumed: bool = False) -> Position:
    """Return the position of a call among those of the same name.

    :param name: such as the recipient. Only its digest is kept: tracebacks with local variables show the context.
    :param content: equal if a second call repeats the first.
    :param of_task: the running task, if it sends itself: its first message has the task's own key.
    :param resumed: whether the task was deferred before it had sent this message.
    :raises FluxomailConnectionError: it is unknown whether the last message of the name was sent, and this may be the
        same one with another content. A retry of the task sends both at their positions.
    :raises FluxomailIdempotencyConflictError: the messages of the name came in another order in an earlier try.
    """
    with _CLAIMING:
        values: dict[str, Any] = context  # type: ignore[assignment]
        ti = context.get("ti")
        known: _Positions = values.setdefault(_POSITIONS, _Positions(ti))
        operator = None if hasattr(context.get("task"), "task_id") else of_task
        another = operator is not None and known.owner[1] is not None and known.owner[1] is not operator
        if known.owner[0] is not ti or another:
            # Copied from the context of another try, or used for one.
            values[_POSITIONS] = known = _Positions(ti)
        known.owner[1] = known.owner[1] if operator is None else operator
        if of_task is not None and resumed and known.of_task is not None:
            return known.of_task
        positions = known[hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()]
        for position in positions:
            if position.is_retried_by(content):
                return position
        if any(position.in_doubt for position in positions):
            raise FluxomailConnectionError(
                "it is unknown whether the last message to this recipient was sent, and this one differs: it may be "
                "the same message or another one, so it was not sent. A retry of the task resolves that. To send it "
                f"at once, {_NAME_THEM}",
                ambiguous=False,
            )
        if any(position.another_subject or position.took_place_of(content) for position in positions):
            raise several_in_another_order()
        position = Position(len(positions), content)
        positions.append(position)
        if of_task is not None and known.of_task is None:
            known.of_task = position
            position.of_task = True
        return position


def several_in_another_order(**facts: Any) -> FluxomailIdempotencyConflictError:
    """Return the error of a message whose position another message had in an earlier try."""
    return FluxomailIdempotencyConflictError(
        "this task sends several messages to one recipient, and in an earlier try the message at this position had "
        "another subject or text: their order changed, or their texts. Which of them were sent is unknown, so this one "
        f"was not sent: {_NAME_THEM}",
        **facts,
    )
