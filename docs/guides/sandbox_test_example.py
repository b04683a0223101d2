"""Tests of a Dag with the sandbox: copy it, and put your own Dag in."""

import pytest

from airflow_provider_fluxomail.hooks import FluxomailHook

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2.11
    from airflow.models.dagbag import DagBag


@pytest.fixture(scope="module")
def dag():
    """The Dag, out of Airflow's Dags folder."""
    return DagBag().dags["fluxomail_send_and_wait"]


def test_ops_get_the_report(dag, fluxomail_sandbox):
    run = dag.test(run_conf={"to": "ops@example.org"})
    assert run.state == "success"
    mail = fluxomail_sandbox.message(to="ops@example.org")
    assert mail.subject == "Nightly load finished"
    assert mail.event_types == ["sent", "delivered"]


def test_a_lost_response_sends_no_second_mail(dag, fluxomail_sandbox):
    fluxomail_sandbox.fail_next("response_lost_after_store", times=2)
    dag.test(run_conf={"to": "ops@example.org"})
    fluxomail_sandbox.assert_sent(1)
    assert len(fluxomail_sandbox.requests("POST")) == 3


@pytest.mark.usefixtures("fluxomail_sandbox")
def test_a_bounce_fails_the_run(dag):
    run = dag.test(run_conf={"to": "bounced@example.org"})
    assert run.state == "failed"


@pytest.mark.fluxomail_sandbox(default_outcome="never")
def test_the_mail_bounces_later(fluxomail_sandbox):
    message = {"to": "ops@example.org", "subject": "Load finished", "content": "20 rows."}
    FluxomailHook().send(message, idempotency_key="load-1")
    mail = fluxomail_sandbox.bounce(reason="mailbox full")
    assert mail.event_types == ["sent", "bounced"]
