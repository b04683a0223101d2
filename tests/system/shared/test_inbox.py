"""What a person does in the sandbox's inbox, in a browser, ends the waits of a real Airflow."""

from __future__ import annotations

from typing import Final

import pytest

from scripts.testbed.airflow_runner import FINAL_STATES
from scripts.testbed.browser import Browser, Tab
from tests.support.chromium import chromium
from tests.system.shared.scene import LIMIT, REPORT_PATH, RUN_ID, Scene

DAG_ID: Final = "inbox"
FOLLOWS: Final = "'follows' in document.documentElement.dataset"
REASON: Final = "550 5.1.1 no such mailbox"

pytestmark = pytest.mark.timeout(3 * LIMIT)


@pytest.fixture(scope="module", autouse=True)
def used(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All is done before the first test: Airflow ends the waits side by side."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        scene.inbox_waits()
        load_the_images(scene, browser.tab())
        follow_a_link(scene, browser, browser.tab())
        let_it_bounce(scene, browser.tab())


def load_the_images(scene: Scene, tab: Tab) -> None:
    show(scene, tab, "opened")
    # Looking is no open.
    assert types(scene, "opened") == ["sent"]
    tab.click(*tab.center(".hint a[href*=images]"))
    tab.until("document.querySelector('#state .badge')?.textContent === 'opened'")


def follow_a_link(scene: Scene, browser: Browser, tab: Tab) -> None:
    show(scene, tab, "clicked")
    # Into the frame of the mail, by the keyboard.
    tab.value("document.querySelector('.frame iframe').focus()")
    tab.press("Tab")
    tab.press("Enter")
    report = scene.sandbox.url + REPORT_PATH
    tab.wait(lambda: [one for one in browser.targets() if one["url"] == report], "the link opens a new tab")


def let_it_bounce(scene: Scene, tab: Tab) -> None:
    show(scene, tab, "bounced")
    tab.click(*tab.center("#reason"))
    tab.type(REASON)
    tab.click(*tab.center("button[value=bounced]"))
    tab.until("location.hash === '#timeline' && document.querySelector('#state .badge').textContent === 'bounced'")


def test_loading_the_images_ends_a_wait_for_an_open(scene: Scene) -> None:
    assert ends(scene, "opened") == "success"
    assert scene.xcom(DAG_ID, "opened")["event"] == "opened"
    assert types(scene, "opened") == ["sent", "opened"]


def test_following_a_link_ends_a_wait_for_a_click(scene: Scene) -> None:
    assert ends(scene, "clicked") == "success"
    assert scene.xcom(DAG_ID, "clicked")["event"] == "clicked"
    # Without images, it was not opened.
    assert types(scene, "clicked") == ["sent", "clicked"]


def test_a_bounce_from_the_inbox_fails_a_wait_and_says_why(scene: Scene) -> None:
    assert ends(scene, "bounced") == "failed"
    assert scene.last_tries(DAG_ID)["bounced"].try_number == 1
    assert REASON in str(scene.airflow.exception(DAG_ID, RUN_ID, "bounced", 1))


def show(scene: Scene, tab: Tab, task: str) -> None:
    """Open the inbox where the link of a waiting task leads."""
    assert scene.states(DAG_ID)[task] == "deferred"
    url = scene.link(DAG_ID, task)
    assert url is not None
    tab.open(url)
    tab.until(f"document.querySelector('h1').textContent === 'To be {task}' && {FOLLOWS}")


def ends(scene: Scene, task: str) -> str:
    """Wait until a wait has ended; its state."""
    scene.until(f"{task} ends", lambda: scene.states(DAG_ID)[task] in FINAL_STATES)
    return scene.states(DAG_ID)[task]


def types(scene: Scene, task: str) -> list[str]:
    """The events of a wait's message."""
    return [event["type"] for event in scene.inbox_mail(task)["events"]]
