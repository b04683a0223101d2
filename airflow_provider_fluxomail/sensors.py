"""The sensor: waits until a message is delivered, and fails when it bounces."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeIntervalMixin,
    PokeReturnValue,
    conf,
    is_deferral_timeout,
)
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.event_types import FAILURES, check_fail_on, check_target
from airflow_provider_fluxomail.client.redaction import redact
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.links import FluxomailTimelineLink, keep_link
from airflow_provider_fluxomail.retry_policy import give_retry_policy

if TYPE_CHECKING:
    import datetime

    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.watching.wait import WaitOutcome
    from airflow_provider_fluxomail.waiting.worker import WorkerWait


class FluxomailDeliverySensor(PokeIntervalMixin, BaseSensorOperator):
    """Waits until a message is delivered (opened, clicked), and fails when it bounces.

    >>> wait = FluxomailDeliverySensor(task_id="wait", send_id="{{ ti.xcom_pull('send')['send_id'] }}", deferrable=True)
    >>> wait.target
    'delivered'

    The first event, by its time, that is the target or a failure decides; clicked implies opened, and opened implies
    delivered. A failure event fails the task without retries, as does the timeout; with ``soft_fail`` both skip it.
    The wait survives outages (5xx, resets, 429). Poke, reschedule and deferrable have the same outcomes; deferrable
    holds no worker: it polls for a few seconds in the worker, where most waits end, and then waits in the triggerer.

    .. seealso:: :doc:`/guides/waiting`, and https://docs.fluxomail.com/api-reference/fluxomail/get-send

    :param send_id: the ``send_id`` that the send returned. (templated)
    :param target: ``delivered``, ``opened`` or ``clicked``; the latter two need a message with HTML. (templated)
    :param fail_on: events that fail the wait, of ``bounced``, ``complained``, ``dropped`` and ``failed``.
    :param fluxomail_conn_id: id of the connection. (templated)
    :param deferrable: wait in the triggerer.
    :param defer_at_once: with ``deferrable``, defer after the first poll, instead of polling for a few seconds.
    :param poke_interval: seconds or ``timedelta`` between polls, with jitter.
    :param timeout: seconds or ``timedelta`` after which the wait fails.
    :return: ``send_id``, and the ``event`` that was reached with its ``time``.
    :raises AirflowFailException: the message failed, the send is unknown, or the key may not read it.
    :raises AirflowSensorTimeout: neither target nor failure was seen in time.
    """

    template_fields: Sequence[str] = ("send_id", "target", "fluxomail_conn_id")
    operator_extra_links = (FluxomailTimelineLink(),)
    #: The link that this process stored: empty for no link, ``None`` if unknown.
    timeline_link: str | None = None
    ui_color = "#d6e9f8"

    def __init__(
        self,
        *,
        send_id: str,
        target: str = "delivered",
        fail_on: Sequence[str] = FAILURES,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_at_once: bool = False,
        poke_interval: datetime.timedelta | float = 30.0,
        **kwargs: Any,
    ) -> None:
        give_retry_policy(kwargs)
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.send_id = send_id
        self.target = target
        self.fail_on = fail_on
        self.fluxomail_conn_id = fluxomail_conn_id
        self.deferrable = deferrable
        self.defer_at_once = defer_at_once
        self._wait: WorkerWait | None = None
        tasks.check_while_parsing(self, self._check_constants)

    def resolve_template_files(self) -> None:
        """Check the arguments at the end of a parse, when all of them are set."""
        super().resolve_template_files()
        tasks.check_while_parsing(self, self._check_constants, complete=True)

    def execute(self, context: Context) -> Any:
        """Wait as the mode says."""
        from airflow_provider_fluxomail.client.watching.wait import Wait, now
        from airflow_provider_fluxomail.hooks import FluxomailHook
        from airflow_provider_fluxomail.triggers.delivery import defer, hold_in_worker
        from airflow_provider_fluxomail.waiting.worker import WorkerWait

        self.timeline_link = ""
        with contextlib.closing(FluxomailHook(self.fluxomail_conn_id)) as hook:
            try:
                send_id, started = tasks.check_send_id(self.send_id), now()
                wait = Wait(
                    send_id,
                    target=check_target(self.target),
                    fail_on=check_fail_on(self.fail_on),
                    started=started,
                    deadline=started + self.timeout,
                )
                options = hook.get_options()
            except FluxomailError as error:
                # Before the first poll: a mistake in the Dag or the connection fails every mode, soft_fail or not.
                tasks.fail_or_retry(error)
            keep_link(self, context, options.settings.base_url, send_id)
            self._wait = WorkerWait(hook, wait)
            if self.deferrable:
                if ending := self._wait.poll_until_ended(self.poke_interval, hold=hold_in_worker(self)):
                    return self._end_here(ending)
                defer(self, wait, interval=self.poke_interval)
            try:
                return super().execute(context)
            except (AirflowSensorTimeout, AirflowSkipException) as error:
                if self._wait is None:
                    # A poll has ended the wait.
                    raise
                if error.__cause__ is not None:
                    # Airflow's never_fail, after an error that is not Fluxomail's.
                    self._log_skip(f"{type(error.__cause__).__name__}: {redact(str(error.__cause__))}")
                    raise
                # Airflow's own timeout: its text and its skip do not name the message, and never_fail ignores it.
                self._end_here(wait.timed_out())

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """End the task with the trigger's event."""
        from airflow_provider_fluxomail.waiting.worker import read_outcome

        return self._conclude(read_outcome(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; Airflow's own timeout of the deferral is a timeout of the sensor, on every version."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSensorTimeout as error:
            # Airflow 3.0 forgets soft_fail here.
            self._fail(error)
        except AirflowException as error:
            # Airflow 2.11 would retry it with a whole new wait.
            if is_deferral_timeout(error):
                self._fail(AirflowSensorTimeout(f"the triggerer did not end the wait in time: {error}"))
            raise

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once."""
        assert self._wait is not None, "only execute polls"
        ending = self._wait.poll()
        return PokeReturnValue(is_done=True, xcom_value=self._end_here(ending)) if ending else False

    def next_poke_interval(self, interval: float, elapsed: float) -> float:
        """Spread the polls, and obey the server's ``Retry-After``."""
        wait = self._wait
        assert wait is not None, "only execute polls"
        if ending := wait.reschedule(elapsed, self.timeout):
            self._end_here(ending)
        # Slightly past the deadline, so that the poll there is the last.
        return wait.delay(interval) + 0.01

    def _check_constants(self, constants: tasks.Constants) -> None:
        for name, check in (("send_id", tasks.check_send_id), ("target", check_target), ("fail_on", check_fail_on)):
            if name in constants:
                check(getattr(self, name))

    def _end_here(self, ending: WaitOutcome) -> dict[str, Any]:
        """End the task with a wait that has ended in this worker."""
        wait, self._wait = self._wait, None
        assert wait is not None, "a wait ends once"
        return self._conclude(wait.ended(ending, rescheduled=self.reschedule))

    def _conclude(self, ending: WaitOutcome) -> dict[str, Any]:
        """End the task. Skips here, because Airflow's versions differ in what soft_fail covers after a deferral."""
        try:
            return tasks.conclude(ending)
        except (AirflowFailException, AirflowSensorTimeout) as error:
            self._fail(error)

    def _fail(self, error: AirflowException) -> NoReturn:
        if self.soft_fail or getattr(self, "never_fail", False):
            self._log_skip(str(error))
            raise AirflowSkipException(f"skipped instead of failed: {error}") from error
        raise error

    def _log_skip(self, why: str) -> None:
        self.log.warning(
            "Skipping the task instead of failing it (%s): %s%s",
            "soft_fail" if self.soft_fail else "never_fail",
            why,
            "" if self.send_id in why else f" (send id {self.send_id})",
        )
