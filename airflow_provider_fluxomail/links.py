"""The operator link that leads from a task to its message."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from airflow_provider_fluxomail.airflow_compat import BaseOperatorLink
from airflow_provider_fluxomail.configuration import airflow_cfg

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import BaseOperator, Context

log = logging.getLogger(__name__)

#: Where the link is kept, under the name that Airflow 3 looks for by itself.
XCOM_KEY: Final = "_link_FluxomailTimelineLink"


class FluxomailTimelineLink(BaseOperatorLink):
    """Leads to the message and its timeline: to the sandbox's inbox, or where ``[fluxomail] inbox_link`` says.

    .. seealso:: :doc:`/guides/waiting`
    """

    name = "Fluxomail timeline"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return what the task kept; empty, and then Airflow shows no link, if it kept nothing.

        :param operator: in a worker of Airflow 3 the task itself, which may know what it kept; the webserver of
            Airflow 2.11 has only its serialized form.
        :param ti_key: names the task instance.
        """
        # Asked for what is not there, Airflow logs an error at the end of a task that is well.
        if (kept := getattr(operator, "timeline_link", None)) is not None:
            return str(kept)
        from airflow_provider_fluxomail.airflow_compat import XCom

        return str(XCom.get_value(ti_key=ti_key, key=XCOM_KEY) or "")


class HasTimelineLink(Protocol):
    """A task that leads to its message.

    :ivar timeline_link: what this process has kept: empty is no link, ``None`` is what it does not know.
    """

    timeline_link: str | None


def keep_link(task: HasTimelineLink, context: Context, base_url: str, send_id: str) -> None:
    """Keep the link of a task, from now on: also while it waits, and where it ends without a worker. Never raises.

    :param base_url: of the connection.
    :param send_id: what the task sent, or waits for.
    """
    try:
        if url := timeline_url(base_url, send_id):
            context["ti"].xcom_push(key=XCOM_KEY, value=url)
            task.timeline_link = url
    except Exception as error:  # noqa: BLE001 - a mail that went out must not look as if it had not
        log.warning("The task has no link to its timeline: %s", error)


def timeline_url(base_url: str, send_id: str) -> str | None:
    """Return the page that shows a send, ``None`` if it is not known.

    :param base_url: ``http://``: a sandbox, which shows its inbox there; Fluxomail itself is on ``https://`` only.
    :raises AirflowConfigException: ``[fluxomail] inbox_link`` is no template of a URL.
    """
    part = quote(send_id, safe="")
    if base_url.startswith("http://"):
        return f"{base_url}/inbox/{part}"
    return airflow_cfg.inbox_link().replace(airflow_cfg.SEND_ID, part) or None
