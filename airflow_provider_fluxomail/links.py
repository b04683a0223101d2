"""The operator link from a task to its message."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from airflow_provider_fluxomail.airflow_compat import BaseOperatorLink
from airflow_provider_fluxomail.configuration import airflow_cfg

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import BaseOperator, Context
    from airflow_provider_fluxomail.operators import FluxomailSendOperator
    from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

log = logging.getLogger(__name__)

#: Key of the XCom with the link; Airflow 3 looks for this name.
XCOM_KEY: Final = "_link_FluxomailTimelineLink"


class FluxomailTimelineLink(BaseOperatorLink):
    """Links to the message and its timeline: by the template ``[fluxomail] inbox_link``, or in a sandbox's inbox::

        [fluxomail]
        inbox_link = https://mail.example.org/sends/{send_id}

    .. seealso:: :doc:`/guides/waiting`
    """

    name = "Fluxomail timeline"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the link that the task stored; empty without one, then Airflow shows no link.

        :param operator: in a worker of Airflow 3 the task itself, which may know its link; in the webserver of Airflow
            2.11 its serialized form.
        :param ti_key: key of the task instance.
        """
        # Reading a missing XCom, Airflow logs an error at the end of a task that succeeded.
        if (link := getattr(operator, "timeline_link", None)) is not None:
            return str(link)
        from airflow_provider_fluxomail.airflow_compat import XCom

        return str(XCom.get_value(ti_key=ti_key, key=XCOM_KEY) or "")


def keep_link(
    task: FluxomailSendOperator | FluxomailDeliverySensor, context: Context, base_url: str, send_id: str
) -> None:
    """Store the link of a task, so that it works during a wait and if no worker ends the task. Never raises."""
    try:
        if url := timeline_url(base_url, send_id):
            context["ti"].xcom_push(key=XCOM_KEY, value=url)
            task.timeline_link = url
    except Exception as error:  # noqa: BLE001 - the message was sent, the task must not fail
        log.warning("Could not store the link to the timeline: %s", error)


def timeline_url(base_url: str, send_id: str) -> str | None:
    """Return the URL of a send's page, by ``inbox_link`` if it is set; ``None`` without one.

    A browser may not know the sandbox by the name that workers use, so ``inbox_link`` wins over its address.

    :param base_url: with ``http://`` a sandbox, which has its inbox there: Fluxomail itself uses ``https://`` only.
    """
    part = quote(send_id, safe="")
    if template := airflow_cfg.inbox_link():
        return template.replace(airflow_cfg.SEND_ID, part)
    return f"{base_url}/inbox/{part}" if base_url.startswith("http://") else None
