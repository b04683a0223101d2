"""The README's picture: a wait in Airflow's grid beside its message in the sandbox's inbox, from real ones.

    .venv/bin/python -m scripts.readme_picture docs/_static/airflow-and-inbox.png

It needs Chromium and takes a minute.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from scripts.testbed.airflow_runner import ROOT, USER, AirflowRunner
from scripts.testbed.browser import Browser, find_chromium
from scripts.testbed.sandbox import API_KEY, Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.testbed.browser import Tab

DAG_ID: Final = "fluxomail_send_and_wait"
#: By run: the recipient, and what then happens to the message.
RUNS: Final = {
    "monday": ("ops@example.org", "delivered"),
    "tuesday": ("former-colleague@example.org", "bounced"),
    "wednesday": ("ops@example.org", "delivered"),
    "thursday": ("data-team@example.org", ""),
}
SHOWN: Final = "thursday"
#: Of each half, in pixels of the page.
SIZE: Final = (760, 720)
SCALE: Final = 1.05
#: Where Airflow keeps how wide the grid is, which here has room for all runs.
_PANELS: Final = (
    "react-resizable-panels:grid-ltr",
    json.dumps({"details-panel,main-panel": {"expandToSizes": {}, "layout": [23, 77]}}),
)
_PAGE: Final = """<!DOCTYPE html><style>
body {{ margin: 0; display: flex; gap: 16px; background: #fff; }}
img {{ width: {0}px; height: {1}px; border: 1px solid #c9ced6; border-radius: 8px; }}
</style><img src="data:image/png;base64,{2}"><img src="data:image/png;base64,{3}">"""


def main(arguments: Sequence[str]) -> int:
    """Make the picture."""
    program = find_chromium()
    if program is None or len(arguments) != 1:
        print("usage: python -m scripts.readme_picture FILE.png, with Chromium installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Sandbox(folder / "sandbox", event_delay=0.4) as sandbox, Browser(program, folder / "chromium") as browser:
            sandbox.start()
            sandbox.control("POST", "settings", json={"default_outcome": "never"})
            connection = {"conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url}
            environment = {"AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection)}
            dag = ROOT / "example_dags" / f"{DAG_ID}.py"
            with AirflowRunner(folder / "airflow", dags=[dag], environment=environment) as airflow:
                airflow.prepare()
                airflow.start()
                airflow.wait_until_healthy()
                airflow.wait_for_dag(DAG_ID)
                send_id = run_all(airflow, sandbox)
                halves = [grid(browser, airflow), inbox(browser, f"{sandbox.url}/inbox/{send_id}")]
            Path(arguments[0]).write_bytes(beside(browser, halves, folder / "page.html"))
    return 0


def run_all(airflow: AirflowRunner, sandbox: Sandbox) -> str:
    """Run the Dag once for each of :data:`RUNS`; the id of the message that is shown."""
    shown = ""
    for run_id, (to, event) in RUNS.items():
        airflow.trigger(DAG_ID, run_id, conf={"to": to})
        for change in airflow.follow(DAG_ID, run_id, timeout=300):
            if (change.task.task_id, change.task.state) == ("wait", "deferred"):
                shown = sandbox.stored(to=to)[1][-1]["send_id"]
                if not event:
                    break
                sandbox.control("POST", f"messages/{shown}/events", json={"type": event})
    return shown


def grid(browser: Browser, airflow: AirflowRunner) -> bytes:
    """Airflow's page of the Dag, with its grid and the task that waits."""
    tab = opened(browser)
    login = httpx.post(f"{airflow.url}/auth/token", json={"username": USER, "password": airflow.password})
    tab.call("Network.setCookie", name="_token", value=login.json()["access_token"], url=airflow.url)
    page = f"{airflow.url}/dags/{DAG_ID}/runs/{SHOWN}/tasks/wait"
    tab.open(page)
    tab.value(f"localStorage.setItem({json.dumps(_PANELS[0])}, {json.dumps(_PANELS[1])})")
    tab.open(page)
    tab.until("['Deferred', 'Waiting for send'].every(text => document.body.innerText.includes(text))")
    tab.until(f"document.querySelector('#grid-{SHOWN}-wait svg') !== null")
    return shot(tab)


def inbox(browser: Browser, url: str) -> bytes:
    """The page of the message."""
    tab = opened(browser)
    tab.open(url)
    tab.until("'follows' in document.documentElement.dataset")
    return shot(tab)


def opened(browser: Browser) -> Tab:
    tab = browser.tab(width=SIZE[0], height=SIZE[1])
    sized: dict[str, Any] = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": SCALE, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", **sized)
    return tab


def shot(tab: Tab) -> bytes:
    return base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])


def beside(browser: Browser, halves: Sequence[bytes], page: Path) -> bytes:
    """Two pictures as one."""
    width, height = (round(one * SCALE) for one in SIZE)
    page.write_text(_PAGE.format(width, height, *(base64.b64encode(half).decode() for half in halves)))
    tab = browser.tab(width=2 * (width + 2) + 16, height=height + 2)
    tab.open(page.as_uri())
    return shot(tab)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
