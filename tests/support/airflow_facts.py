"""What differs between the supported Airflow releases, as far as tests have to know it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any, Final

from packaging.version import Version

#: Major, minor and micro.
RELEASE: Final = Version(importlib.metadata.version("apache-airflow")).release[:3]

#: The form of a connection before Airflow 3.2 is made of FAB's widgets, and only 2.11 always has FAB.
HAS_CONNECTION_FORM: Final = RELEASE >= (3, 2) or importlib.util.find_spec("flask_appbuilder") is not None

#: With ``dag.test()``, Airflow 3.0 to 3.2 hand no exception to callbacks.
CALLBACKS_SEE_THE_EXCEPTION: Final = not (3, 0) <= RELEASE < (3, 3)

#: With ``dag.test()``, a task instance of Airflow 3.0 has no ``log_url``; in a worker it has.
TASKS_HAVE_A_LOG_URL: Final = not (3, 0) <= RELEASE < (3, 1)

#: With ``dag.test()``, Airflow 3.0 hands a rescheduled sensor the time of its first poke as text; its next poke fails.
CAN_POKE_AGAIN: Final = not (3, 0) <= RELEASE < (3, 1)

#: Whether Airflow sends email about a failing task at all.
HAS_FAILURE_MAILS: Final = not (3, 0) <= RELEASE < (3, 1)

#: Why a failing task sends no email by the email backend; empty if it does.
NO_FAILURE_MAILS: Final = (
    "Airflow 3.0 cannot render its own failure email: its template reads ti.mark_success_url, which is not there"
    if not HAS_FAILURE_MAILS
    else "Airflow 3.2.0 to 3.3.0 ignore [email] email_backend for failing tasks"
    if (3, 2) <= RELEASE < (3, 3, 1)
    else ""
)

#: With ``dag.test()``, Airflow 3.0 prints at any log level what its task runner and supervisor say to each other, and
#: tracebacks with the local variables of each frame, in boxes.
PRINTS_VALUES: Final = (3, 0) <= RELEASE < (3, 1)

#: Airflow 3.0 gets a connection of the environment without making its home folder.
MAKES_ITS_HOME: Final = not (3, 0) <= RELEASE < (3, 1)


def stored(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result this Airflow can store as XComs: 3.0 cannot store ``None``."""
    return {name: value for name, value in result.items() if value is not None or not (3, 0) <= RELEASE < (3, 1)}
