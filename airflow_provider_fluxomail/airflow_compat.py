"""Everything that differs between Airflow 2.11 and 3.3, and every private name of Airflow that the package needs.

The rest of the package imports Airflow's names from here; no other module checks which Airflow is running.
When a release is no longer supported, what is marked with it can go. The module imports Airflow's modules on first
use only: a Dag parse pays for the names that its operators need, a triggerer for its own.

``apache-airflow-providers-common-compat`` has such a table too, but deployments of Airflow 3.0 pin a release of it
from before that (1.7.3).
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote

from airflow import __version__ as airflow_version
from packaging.version import Version

if TYPE_CHECKING:
    import datetime

    from airflow.sdk import (
        Asset as Asset,
        BaseHook as BaseHook,
        BaseNotifier as BaseNotifier,
        BaseOperator as BaseOperator,
        BaseOperatorLink as BaseOperatorLink,
        BaseSensorOperator as BaseSensorOperator,
        Connection as Connection,
        Context as Context,
        ObjectStoragePath as ObjectStoragePath,
        PokeReturnValue as PokeReturnValue,
        RetryDecision as RetryDecision,
        RetryPolicy as RetryPolicy,
        get_current_context as get_current_context,
    )
    from airflow.sdk.bases.decorator import (
        DecoratedOperator as DecoratedOperator,
        TaskDecorator as TaskDecorator,
        determine_kwargs as determine_kwargs,
        task_decorator_factory as task_decorator_factory,
    )
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.definitions.context import context_merge as context_merge
    from airflow.sdk.exceptions import (
        AirflowConfigException as AirflowConfigException,
        AirflowException as AirflowException,
        AirflowFailException as AirflowFailException,
        AirflowNotFoundException as AirflowNotFoundException,
        AirflowOptionalProviderFeatureException as AirflowOptionalProviderFeatureException,
        AirflowSensorTimeout as AirflowSensorTimeout,
        AirflowSkipException as AirflowSkipException,
    )
    from airflow.sdk.execution_time.xcom import XCom as XCom
    from airflow.sdk.log import redact as redact  # type: ignore[attr-defined]
    from airflow.triggers.base import BaseEventTrigger as BaseEventTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer as SharedStreamProducer

_Result = TypeVar("_Result")

#: A release candidate counts as its release.
AIRFLOW_VERSION: Final = Version(Version(airflow_version).base_version).release[:2]

# What this release has. The rest of the package checks these, not the release.

#: Airflow 2.11 has no assets that triggers watch.
HAS_ASSET_WATCHERS: Final = AIRFLOW_VERSION >= (3, 0)
#: Before Airflow 3.3, an operator has ``retries`` and ``retry_delay`` only.
HAS_RETRY_POLICIES: Final = AIRFLOW_VERSION >= (3, 3)
#: Before Airflow 3.3, a trigger that ends its task cannot push what the task returns.
TRIGGERS_CAN_END_TASKS: Final = AIRFLOW_VERSION >= (3, 3)
#: ``dag_run.clear_number`` counts every clear. Before Airflow 3.2 only those of a run as a whole.
COUNTS_EVERY_CLEAR: Final = AIRFLOW_VERSION >= (3, 2)
#: Airflow 2.11 sets a task's final state before it runs the callbacks; Airflow 3 does not tell them the state.
CALLBACKS_SEE_THE_STATE: Final = AIRFLOW_VERSION < (3, 0)
#: Callbacks of Airflow 2.11 may read the metadata database.
CALLBACKS_READ_THE_DATABASE: Final = AIRFLOW_VERSION < (3, 0)
#: The task instance of a Dag-level failure callback is the task that failed last; before Airflow 3.2 it may be any.
DAG_CALLBACKS_GET_THE_LAST_FAILURE: Final = AIRFLOW_VERSION >= (3, 2)

#: The modules that have each name, newest first; with another name there, that after a colon.
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    # The second place is that of Airflow 2.11.
    "Asset": ("airflow.sdk", "airflow.datasets:Dataset"),
    "BaseEventTrigger": ("airflow.triggers.base", "airflow.triggers.base:BaseTrigger"),
    "BaseNotifier": ("airflow.sdk", "airflow.notifications.basenotifier"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "DecoratedOperator": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "ObjectStoragePath": ("airflow.sdk", "airflow.io.path"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "XCom": ("airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "get_current_context": ("airflow.sdk", "airflow.operators.python"),
    "task_decorator_factory": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    # The last place is that of Airflow 2.11 and 3.0.
    "AirflowException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "context_merge": ("airflow.sdk.definitions.context", "airflow.utils.context"),
    # 3.1 and later, 3.0, 2.11.
    "redact": ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"),
    # The last place is that of Airflow 2.11 to 3.1.
    "conf": ("airflow.sdk.configuration", "airflow.configuration"),
    "Stats": ("airflow.sdk.observability.stats", "airflow.stats"),
    "AirflowConfigException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowFailException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowNotFoundException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowOptionalProviderFeatureException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowSensorTimeout": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowSkipException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    # From Airflow 3.3 on.
    "RetryDecision": ("airflow.sdk",),
    "RetryPolicy": ("airflow.sdk", "builtins:object"),
    "SharedStreamProducer": ("airflow.triggers.shared_stream",),
}


def __getattr__(name: str) -> Any:
    """Import one of Airflow's names from where this release has it."""
    for place in _PLACES.get(name, ()):
        module, _, attribute = place.partition(":")
        try:
            value = getattr(importlib.import_module(module), attribute or name)
        except (ImportError, AttributeError):
            continue
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: Airflow {airflow_version} does not have it")


def _airflow(name: str) -> Any:
    """Return one of Airflow's names, for use within this module."""
    return getattr(sys.modules[__name__], name)


# ---- Connections


async def get_async_connection(conn_id: str) -> Connection:
    """Look a connection up on an event loop.

    Airflow 2.11 and 3.0 have no asynchronous lookup. That of 3.1 to 3.3.1 masks secrets with a blocking call to the
    supervisor, which fails while another coroutine is waiting for its response. ``aextra_dejson`` came with the fix.

    In a thread of asgiref's, not of asyncio's: Airflow 3.0's blocking lookup finds the event loop only from there.
    """
    hook = _airflow("BaseHook")
    found: Connection
    if AIRFLOW_VERSION >= (3, 3) and hasattr(importlib.import_module("airflow.sdk").Connection, "aextra_dejson"):
        found = await hook.aget_connection(conn_id)
    else:
        # A dependency of every Airflow.
        from asgiref.sync import sync_to_async

        found = await sync_to_async(hook.get_connection)(conn_id)
    return found


# ---- Tasks


class PokeIntervalMixin:
    """Lets a sensor choose the time of its next poke, with :meth:`next_poke_interval`.

    Airflow offers no public way: ``exponential_backoff`` ignores ``Retry-After``.
    """

    def _get_next_poke_interval(
        self, started_at: datetime.datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        interval: float = super()._get_next_poke_interval(started_at, run_duration, poke_count)  # type: ignore[misc]
        return self.next_poke_interval(interval, run_duration())

    def next_poke_interval(self, interval: float, elapsed: float) -> float:
        """Return the seconds to the next poke, ``elapsed`` seconds after the first, across reschedules."""
        return interval


class RenderedFieldMixin:
    """Says in ``rendered_field`` which field of an operator is being rendered, which ``render_template`` needs.

    Overrides a private method that all releases have, for tasks that are mapped and for those that are not.
    """

    rendered_field: str | None = None

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        render: Any = super()._do_render_template_fields  # type: ignore[misc]
        if parent is not self:
            # An object in a field, with templated fields of its own.
            render(parent, template_fields, context, jinja_env, seen_oids)
            return
        try:
            for name in template_fields:
                self.rendered_field = name
                render(parent, (name,), context, jinja_env, seen_oids)
        finally:
            self.rendered_field = None


def is_unmapped(task: object) -> bool:
    """Return whether Airflow has just made this operator, in a worker, from a mapped one. Private to all releases."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


class DecoratedOutputMixin:
    """Goes last among the bases of a decorated operator, for Airflow 3.0.

    Its ``DecoratedOperator`` reads ``self.xcom_push``, which its ``BaseOperator`` does not have, and never calls it.
    """

    xcom_push: Any = None


def storable_result(task: BaseOperator, result: _Result) -> _Result:
    """Return what a task may return in place of ``result``.

    Airflow 3.0 fails a task with ``multiple_outputs`` that pushes an XCom of ``None`` (its API server responds 422).
    Left out, it is read as ``None`` all the same.
    """
    if AIRFLOW_VERSION == (3, 0) and isinstance(result, dict) and getattr(task, "multiple_outputs", False):
        return cast("_Result", {name: value for name, value in result.items() if value is not None})
    return result


def is_deferral_timeout(error: BaseException) -> bool:
    """Return whether ``defer(timeout=...)`` ended a deferral: by name, as the class differs between releases."""
    return type(error).__name__.startswith("TaskDeferral") and "timeout" in str(error).lower()


def has_pre_execute_hook(task: BaseOperator) -> bool:
    """Return whether a task was given ``pre_execute=``. Airflow keeps it under a private name only."""
    return getattr(task, "_pre_execute_hook", None) is not None


def has_post_execute_hook(task: BaseOperator) -> bool:
    """Return whether a task was given ``post_execute=``. Airflow keeps it under a private name only."""
    return getattr(task, "_post_execute_hook", None) is not None


def api_error_status(error: BaseException) -> object:
    """Return the HTTP status of the API server's response in Airflow 3's ``AirflowRuntimeError``, ``None`` if none."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    return detail.get("status_code") if isinstance(detail, Mapping) else None


# ---- Triggers


def asset_state_stores(stores: Any) -> list[Any]:
    """Return the state store of each asset of a trigger (3.3 and later), from the accessor's private table."""
    by_name = getattr(stores, "_by_name", None)
    return list(by_name.values()) if by_name else [stores] if stores is not None else []


# ---- Callbacks


def runs_execute_callback() -> bool:
    """Return whether the caller is an ``on_execute_callback`` (or another callback) of Airflow 3.

    There, the task's context is the current one already. Only the private function that runs callbacks shows it.
    """
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_code.co_name == "_run_task_state_change_callbacks":
            return True
    return False


class NotifierRenderMixin:
    """Renders templates of a notifier also without a Dag in the context.

    Deadline alerts (Airflow 3.1 and later) have none, and ``dag.test()`` hands callbacks a serialized one. Airflow's
    ``BaseNotifier._render`` needs the Dag itself, so it is left out.
    """

    def _render(self, template: Any, context: Any, dag: Any = None) -> Any:
        dag = dag or context.get("dag")
        known = dag if hasattr(dag, "render_template_as_native_obj") else None
        base: Any = super(_airflow("BaseNotifier"), self)
        return base._render(template, context, known)


def task_states(dag_id: str, run_id: str) -> Mapping[str, object]:
    """Request the states of a run's tasks from Airflow, in a process that it supervises. Not before Airflow 3.1.

    The Dag processor of 3.0 does not respond, and would block its callback forever.
    """
    if AIRFLOW_VERSION < (3, 1):
        raise LookupError("callbacks can read task states from Airflow 3.1 on")
    runner = importlib.import_module("airflow.sdk.execution_time.task_runner")
    states: Mapping[str, Any] = runner.RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id])
    return states.get(run_id) or {}


def run_url(dag_id: str, run_id: str) -> str:
    """Return the page of a Dag run. Airflow 2.11 has another address for it, in another section."""
    dag, run = quote(dag_id), quote(run_id)
    conf = _airflow("conf")
    if AIRFLOW_VERSION >= (3, 0):
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag}/runs/{run}"
    return f"{conf.get('webserver', 'base_url', fallback='').rstrip('/')}/dags/{dag}/grid?dag_run_id={run}"


# ---- Storage


def is_local(path: object) -> bool:
    """Return whether a path is on this machine. On Airflow 2.11, one in object storage is a ``pathlib.Path`` too."""
    return isinstance(path, Path) and not hasattr(path, "fs")


def lines_of(file: Any) -> Iterator[str]:
    """Iterate over the lines of a text file: what Airflow 2.11 opens in object storage is not iterable."""
    return iter(file.readline, "")


# ---- Metrics


@functools.cache
def airflow_stats() -> Any:
    """Return Airflow's metrics client, ready for use.

    Airflow 3.2 and later have two of them, and a triggerer sets up only the one that is not for providers.
    """
    stats: Any = _airflow("Stats")
    module = sys.modules[stats.__module__]
    if getattr(module, "_factory", None) is None and vars(stats).get("factory") is None:
        try:
            stats_utils = importlib.import_module("airflow.sdk.observability.metrics.stats_utils")
        except ImportError:
            # Before Airflow 3.2 it sets itself up.
            return stats
        if hasattr(module, "_factory"):
            legacy = _airflow("conf").getboolean("metrics", "legacy_names_on", fallback=True)
            stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=legacy)
        else:
            # Airflow 3.2.
            stats.initialize(factory=stats_utils.get_stats_factory(stats))
    return stats
