"""The Fluxomail API for any Python program: nothing here imports Airflow.

::

    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.sync import FluxomailClient
    from airflow_provider_fluxomail.client.settings import ClientSettings

    with FluxomailClient(ClientSettings(api_key="...")) as client:
        message = EmailMessage(to="ops@example.org", subject="Nightly load", content="Loaded 20 rows.")
        client.send(message, idempotency_key="nightly-load-2026-01-01")
"""
