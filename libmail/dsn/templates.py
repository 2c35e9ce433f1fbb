"""The text of delivery status notifications: built in, or from a file (bounce(5)).

The file has sections `failure_template = <<EOF` ... `EOF`: header fields Charset, From, Subject and
Postmaster-Subject, an empty line, and text in which $name stands for a parameter. A $name with the
suffix _seconds, _minutes, _hours, _days or _weeks is a time in that unit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Template", "TemplateError", "Templates", "builtin_templates", "parse_templates"]

_FOR_HELP: Final = """\
For further assistance, please send mail to postmaster.

If you do so, please include this problem report. You can
delete your own text from the attached returned message.

                   The mail system
"""
_SECTION: Final = re.compile(r"(\w+)\s*=\s*<<\s*(\S+)\s*")
_TIME_NAME: Final = re.compile(
    r"\$(?:\{(\w+)_(seconds|minutes|hours|days|weeks)\}|(\w+)_(seconds|minutes|hours|days|weeks)\b)"
)
_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}


class TemplateError(Exception):
    """The template file is not usable; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of notification. sender: value of From:. text: before expansion."""

    charset: str
    sender: str
    subject: str
    postmaster_subject: str
    text: str

    def expanded(self, expand: Callable[[str], str], seconds: Callable[[str], float]) -> str:
        """The text with parameter values. seconds: the value of a time parameter."""

        def time_value(match: "re.Match[str]") -> str:
            name, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
            return str(int(seconds(name) + _UNITS[unit] / 2) // _UNITS[unit])

        return expand(_TIME_NAME.sub(time_value, self.text))


@dataclass(frozen=True, slots=True)
class Templates:
    """failure: non-delivery; delay: a warning; success: RFC 3461 SUCCESS; verify: sendmail -bv."""

    failure: Template
    delay: Template
    success: Template
    verify: Template


def builtin_templates() -> Templates:
    """What is used where no file says otherwise."""
    opening = "This is the mail system at host $myhostname.\n\n"
    failure = Template(
        "us-ascii",
        "Mail Delivery System <MAILER-DAEMON>",
        "Undelivered Mail Returned to Sender",
        "Postmaster Copy: Undelivered Mail",
        f"""{opening}I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

{_FOR_HELP}""",
    )
    rule = "#" * 68
    delay = replace(
        failure,
        subject="Delayed Mail (still being retried)",
        postmaster_subject="Postmaster Warning: Delayed Mail",
        text=f"""{opening}{rule}
# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #
{rule}

Your message could not be delivered for more than $delay_warning_time_hours hour(s).
It will be retried until it is $maximal_queue_lifetime_days day(s) old.

{_FOR_HELP}""",
    )
    success = replace(
        failure,
        subject="Successful Mail Delivery Report",
        postmaster_subject="",
        text=f"""{opening}Your message was successfully delivered to the destination(s)
listed below. If the message was delivered to mailbox you will
receive no further notifications. Otherwise you may still receive
notifications of mail delivery errors from other systems.

                   The mail system
""",
    )
    verify = replace(
        failure,
        subject="Mail Delivery Status Report",
        postmaster_subject="",
        text=f"""{opening}Enclosed is the mail delivery report that you requested.

                   The mail system
""",
    )
    return Templates(failure, delay, success, verify)


def _section(base: Template, lines: list[str], where: str) -> Template:
    found = {"charset": base.charset, "from": base.sender, "subject": base.subject}
    found["postmaster-subject"] = base.postmaster_subject
    body = 0
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if not line.strip():
            body = number + 1
            break
        if not colon or name.lower() not in found:
            raise TemplateError(f"{where}: unknown header in template: {line[:80]}")
        found[name.lower()] = value.strip()
    text = "".join(f"{line}\n" for line in lines[body:])
    return Template(
        found["charset"], found["from"], found["subject"], found["postmaster-subject"], text
    )


def parse_templates(text: str, path: str) -> Templates:
    """Built-in templates with those of a file in their place. Raises TemplateError."""
    templates = builtin_templates()
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), 1))
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        match = _SECTION.fullmatch(line)
        name = "" if match is None else match[1].removesuffix("_template")
        if match is None or name not in ("failure", "delay", "success", "verify"):
            raise TemplateError(f"{where}: expected NAME_template = <<WORD")
        body: list[str] = []
        for _, body_line in lines:
            if body_line.strip() == match[2]:
                break
            body.append(body_line)
        else:
            raise TemplateError(f"{where}: no {match[2]} ends the template")
        section = _section(getattr(templates, name), body, where)
        templates = replace(templates, **{name: section})
    return templates
