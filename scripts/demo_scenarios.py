"""The runs of ``make demo``, and how each should end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.testbed.airflow_runner import TaskTry

#: The client makes this many requests per try (four by default); the responses to all of them are lost.
LOST_RESPONSES: Final = 2


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One run of the Dag and how it should end.

    :param states: the last state of each task.
    :param event: the last event of the timeline.
    :param send_tries: how many tries the send takes.
    :param lost_responses: how many requests lose their response.
    :param deferred: the message is delivered only when ``wait`` has been seen deferred.
    """

    run_id: str
    title: str
    story: str
    to: str
    states: dict[str, str]
    event: str
    send_tries: int = 1
    lost_responses: int = 0
    deferred: bool = False


SCENARIOS: Final = (
    Scenario(
        run_id="delivered",
        title="Send, and wait until it is delivered",
        story="The delivery takes a while. A worker polls for some seconds, then the task defers: the worker is free, "
        "and Airflow's triggerer waits. Only then does the sandbox deliver.",
        # To addresses with this tag nothing happens by itself.
        to="ada+never@example.org",
        states={"send": "success", "wait": "success"},
        event="delivered",
        deferred=True,
    ),
    Scenario(
        run_id="responses-lost",
        title="All responses to the first try are lost",
        story=f"The sandbox stores the message, then cuts the connection, {LOST_RESPONSES} times. The task can't know "
        "that it has sent, and fails. Airflow tries again, with the same idempotency key.",
        to="bob@example.org",
        states={"send": "success", "wait": "success"},
        event="delivered",
        send_tries=2,
        lost_responses=LOST_RESPONSES,
    ),
    Scenario(
        run_id="bounced",
        title="The message bounces",
        story="There is no such mailbox. The send stays green, for it was accepted; the wait goes red and says why.",
        to="bounced@example.com",
        states={"send": "success", "wait": "failed"},
        event="bounced",
    ),
)


@dataclasses.dataclass
class Account:
    """What a run has come to: collected from Airflow and from the sandbox, then judged."""

    scenario: Scenario
    tasks: dict[str, TaskTry]
    tries: list[TaskTry]
    seen: dict[str, set[str]]
    key: str
    reused: bool
    messages: list[dict[str, Any]]
    count: int
    posts: list[dict[str, Any]]
    reasons: list[tuple[str, int, str]]

    @property
    def lost(self) -> int:
        """How many requests to send got no response although the message was stored."""
        return sum(row["fault"] == "response_lost_after_store" for row in self.posts)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The timeline, if there is one."""
        return list(self.messages[0]["events"]) if self.messages else []

    def differences(self) -> Iterator[str]:
        """Say what is not as it should be."""
        scenario = self.scenario
        if self.count != 1:
            yield f"the sandbox has stored {self.count} messages with the key {self.key or '(none)'}, not 1"
        for task_id, expected in scenario.states.items():
            state = self.tasks[task_id].state if task_id in self.tasks else None
            if state != expected:
                yield f"task {task_id} is {state}, not {expected}"
        if len(self.tries) != scenario.send_tries:
            yield f"task send took {len(self.tries)} tries, not {scenario.send_tries}"
        if self.lost != scenario.lost_responses:
            yield f"{self.lost} responses were lost, not {scenario.lost_responses}"
        if any(one.state == "success" for one in self.tries[:-1]):
            yield "task send was run again after it had succeeded"
        if self.reused != (scenario.lost_responses > 0):
            yield f"task send says reused={self.reused}, though {self.lost} responses were lost"
        if scenario.deferred and "deferred" not in self.seen.get("wait", ()):
            yield "task wait was never deferred"
        last = self.events[-1]["type"] if self.events else "nothing"
        if last != scenario.event:
            yield f"the timeline ends with {last}, not {scenario.event}"
