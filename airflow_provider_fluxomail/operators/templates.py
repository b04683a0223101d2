"""Renders the templated fields of the operators: which texts are names of template files, and what holds templates."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import RenderedFieldMixin, is_local

if TYPE_CHECKING:
    from jinja2 import Environment

    from airflow_provider_fluxomail.airflow_compat import BaseOperator, Context

    _Operator = BaseOperator
else:
    # Not one itself: Airflow 3.3 takes the defaults of a mapped task from each operator class among the bases.
    _Operator = object

#: The fields of a message that may be the name of a template file.
BODIES: Final = ("content", "html_content")


class Unrecorded:
    """A templated text that Airflow does not store.

    >>> FluxomailSendOperator(
    ...     task_id="code", to="ada@example.org", subject="Your code", content=Unrecorded("It is {{ params.code }}.")
    ... ).content
    ***

    Airflow stores the rendered value of every templated field in its database and shows it in the UI. A body in this
    wrapper is rendered and sent, but ``***`` is stored.

    :param text: the text. (templated)
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "***"


def unwrap(body: str | Unrecorded | None) -> str | None:
    """Return the text of a body."""
    return body.text if isinstance(body, Unrecorded) else body


class RendersMessages(RenderedFieldMixin, _Operator):
    """Renders the fields of an operator's class; those that a subclass adds are rendered as Airflow does it.

    Airflow reads any text with one of the suffixes of ``template_ext`` as the name of a file: an address in Moldova
    (``.md``), an attachment's path. Here only bodies are, those of messages in a field too.
    """

    #: The class's own templated fields, and those of them that hold messages: one, or a list.
    own_fields: ClassVar[Sequence[str]] = ()
    fields_of_messages: ClassVar[Sequence[str]] = ()

    def resolve_template_files(self) -> None:
        """Keep file names: only a worker reads the files, so that no body is stored with the Dag."""
        self.prepare_template()

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render, treating only bodies as names of template files."""
        from airflow_provider_fluxomail.client.html_text import text_from_html
        from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage

        field = self.rendered_field
        if field not in self.own_fields or (seen_oids and id(content) in seen_oids):
            # The latter is what another task returned: no template.
            return super().render_template(content, context, jinja_env, seen_oids)
        environment = jinja_env or self.get_template_env()
        by_airflow = functools.partial(
            super().render_template, context=context, jinja_env=environment, seen_oids=seen_oids
        )

        def render(value: Any, body: str | None = None) -> Any:
            if isinstance(value, Unrecorded):
                # A new object: mapped tasks, and later tries in the same process, share the Dag's.
                return Unrecorded(render(value.text, body))
            if isinstance(value, str):
                text = tasks.with_template_file(value, body, environment) if body else value
                if text.endswith(tuple(self.template_ext)):
                    # An empty comment changes the suffix, not the text.
                    text += environment.comment_start_string + environment.comment_end_string
                return by_airflow(text)
            if isinstance(value, Attachment | EmailMessage):
                fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
                html = fields.get("html_content")
                if html and "{" in html and fields["content"] == text_from_html(html):
                    # Derived from HTML that was not rendered yet.
                    del fields["content"]
                return type(value)(**render(fields))
            if isinstance(value, PurePath) and is_local(value):
                return type(value)(render(str(value)))
            if isinstance(value, Mapping):
                return {name: render(inner) for name, inner in value.items()}
            if type(value) in (list, tuple):
                return type(value)(map(render, value))
            return by_airflow(value)

        def render_message(value: Any) -> Any:
            if not isinstance(value, Mapping):
                return render(value)
            return {name: render(inner, name if name in BODIES else None) for name, inner in value.items()}

        try:
            if field not in self.fields_of_messages:
                return render(content, field if field in BODIES else None)
            many = type(content) in (list, tuple)
            return [render_message(item) for item in content] if many else render_message(content)
        except RecursionError:
            # The check of the message says which value contains itself.
            return content
