r"""Text added to every reply that refuses: smtpd_reject_footer, and what else has such a parameter.

The footer is a line of its own, with the code of the reply, unless it begins with `\c`; `\n`
begins another line.
"""

from collections.abc import Mapping

from libmail.config.errors import ExpansionError
from libmail.config.expand import expand
from libmail.log import LOG
from libmail.smtp.reply import Reply
from libmail.text.allowed import allowed_characters, sanitised

__all__ = ["add_footer"]


def add_footer(
    reply: Reply,
    footer: str,
    values: Mapping[str, str],
    allowed: str,
    title: str = "smtpd_reject_footer",
) -> Reply:
    """The reply with the footer; a footer that cannot be expanded is left out, with a warning.

    values: of the attributes that it may name; another is empty, with a warning. allowed: what
    characters these may bring, smtpd_expansion_filter. title: the parameter.
    """
    characters = allowed_characters(allowed)

    def value(name: str) -> str:
        if name not in values:
            LOG.warning(f'unknown macro name "{name}" in expansion request')
        text = sanitised(values.get(name, ""), characters)
        return text.replace("$", "$$")  # it comes from outside, and is no template

    try:
        text = expand(footer, value)
    except ExpansionError as err:
        LOG.warning(f"{title}: {err}")
        return reply
    text = text.replace("\\n", "\n")
    if text.startswith("\\c"):
        return Reply(reply.code, reply.dsn, reply.text + text[2:])
    return Reply(reply.code, reply.dsn, f"{reply.text}\n{text}")
