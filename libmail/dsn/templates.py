"""The text of delivery status notifications: built in, or from a file (bounce(5)).

The file has sections `failure_template = <<EOF` ... `EOF`: header fields Charset, From, Subject and
Postmaster-Subject, an empty line, and text in which $name stands for a parameter. The names
$delay_warning_time and $maximal_queue_lifetime with a suffix _seconds, _minutes, _hours, _days or
_weeks are times in that unit.

A section that cannot be used leaves the built-in one in place; a file that cannot be understood is
an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from libmail.config import Config
from libmail.config.expand import references
from libmail.files.safe_open import safe_open
from libmail.log import printable

__all__ = [
    "KINDS",
    "Template",
    "TemplateError",
    "Templates",
    "builtin_templates",
    "expanded",
    "parse_templates",
    "read_templates",
]

_FOR_HELP: Final = """\
For further assistance, please send mail to postmaster.

If you do so, please include this problem report. You can
delete your own text from the attached returned message.

                   The mail system
"""
KINDS: Final = ("failure", "delay", "success", "verify")
_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
_TIME: Final = re.compile(
    r"(?<!\$)\$([({])?((delay_warning_time|maximal_queue_lifetime)_([A-Za-z0-9_]+))(?(1)[)}])"
)
_TOO_MANY: Final = 1000
_HEADER: Final = re.compile(r"([!-9;-~]+)[ \t]*:(.*)")
_FIELDS: Final = {
    "charset": "charset",
    "from": "sender",
    "subject": "subject",
    "postmaster-subject": "postmaster_subject",
}


class TemplateError(Exception):
    """The template file is not usable; the text names it."""


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of notification. sender: value of From:. text: before expansion.

    postmaster_subject: "" where the postmaster gets no copy. file: for warnings.
    """

    charset: str
    sender: str
    subject: str
    postmaster_subject: str
    text: str
    file: str = "[built-in]"

    def source(self, kind: str) -> str:
        """The section of a template file that says the same."""
        copy = f"Postmaster-Subject: {self.postmaster_subject}\n" if self.postmaster_subject else ""
        return (
            f"{kind}_template = <<EOF\nCharset: {self.charset}\nFrom: {self.sender}\n"
            f"Subject: {self.subject}\n{copy}\n{self.text}EOF\n"
        )


class Expanded(NamedTuple):
    """The text of a template with the values of parameters, and what is odd about it."""

    text: str
    warnings: tuple[str, ...]


def expanded(config: Config, kind: str, template: Template) -> Expanded:
    """Put values in. Raises TemplateError for names that mean nothing, ConfigError."""
    warnings: list[str] = []

    def time_value(match: "re.Match[str]") -> str:
        full, name, suffix = match[2], match[3], match[4]
        if suffix not in _UNITS:
            raise TemplateError(
                f'{template.file}: unrecognized suffix "{suffix}" in parameter "{full}"'
            )
        value = config.seconds(name)
        result = int(value // _UNITS[suffix])
        warnings.extend(_odd_time(template.file, kind, full, result, value > 0))
        return str(result)

    text = _TIME.sub(time_value, template.text)
    if any(config.raw(name) is None for name in references(text)):
        shown = printable(template.text.rstrip("\n"))
        raise TemplateError(f"{template.file}: undefined $name in {kind} template: {shown}")
    return Expanded(config.expand(text), tuple(warnings))


def _odd_time(file: str, kind: str, name: str, result: int, some: bool) -> tuple[str, ...]:
    """Warnings about a time that would better be told in another unit. some: it is not zero."""
    unit = name.rpartition("_")[2]
    if result >= _TOO_MANY:
        what, advice = f'excessive result "{result}"', "increase"
    elif some and not result:
        what, advice = "zero result", "reduce"
    else:
        return ()
    return (
        f'{file}: {what} in {kind} template conversion of parameter "{name}"',
        f'please {advice} time unit "{unit}" of "{name}" in {kind} template',
        "for instructions see the bounce(5) manual",
    )


@dataclass(frozen=True, slots=True)
class Templates:
    """failure: non-delivery; delay: a warning; success: RFC 3461 SUCCESS; verify: sendmail -bv."""

    failure: Template
    delay: Template
    success: Template
    verify: Template

    def of(self, kind: str) -> Template:
        """One of them; kind: of KINDS."""
        found: Template = getattr(self, kind)
        return found


_SENDERS: Final = {
    "standard": "Mail Delivery System <MAILER-DAEMON>",
    "obsolete": "MAILER-DAEMON (Mail Delivery System)",
}


def builtin_templates(name_format: str = "standard") -> Templates:
    """What is used where no file says otherwise. name_format: header_from_format."""
    opening = "This is the mail system at host $myhostname.\n\n"
    failure = Template(
        "us-ascii",
        _SENDERS[name_format],
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


class _BadSection(Exception):
    """Why one section is not used: lines of a warning."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


def _section(base: Template, kind: str, lines: list[str], file: str) -> Template:
    """Header fields as far as there are any, empty lines, text. Raises _BadSection."""
    found: dict[str, str] = {}
    text = list(lines)
    while text and (header := _HEADER.fullmatch(text[0])):
        found[_field_name(base, kind, header[1], file)] = _value(kind, header, file)
        del text[0]
    while text and not text[0].strip():
        del text[0]
    if not text:
        raise _BadSection(
            f"{file}: missing message text in {kind} template -- ignoring this template"
        )
    template = replace(base, **found, text="".join(f"{line}\n" for line in text), file=file)
    if template.charset.lower() == "us-ascii" and not template.text.isascii():
        raise _BadSection(
            f"{file}: 8-bit message text in {kind} template",
            "please specify a charset value other than us-ascii",
            "-- ignoring this template for now",
        )
    return template


def _field_name(base: Template, kind: str, label: str, file: str) -> str:
    field = _FIELDS.get(label.lower())
    wrong = "unknown" if field is None else ""
    if field == "postmaster_subject" and not base.postmaster_subject:
        wrong = "inapplicable"
    if field is None or wrong:
        raise _BadSection(
            f'{file}: {wrong} "{label}" header label in {kind} template -- ignoring this template'
        )
    return field


def _value(kind: str, header: "re.Match[str]", file: str) -> str:
    value = header[2].strip()
    wrong = "empty" if not value else "" if value.isascii() else "non-ASCII"
    if wrong:
        raise _BadSection(
            f'{file}: {wrong} "{header[1]}" header value in {kind} template'
            " -- ignoring this template"
        )
    return value


def read_templates(path: str, name_format: str = "standard") -> tuple[Templates, tuple[str, ...]]:
    """The templates of a file, the built-in ones for "". Raises TemplateError, OSError."""
    builtin = builtin_templates(name_format)
    if not path:
        return builtin, ()
    with open(path, encoding="utf-8", errors="surrogateescape", opener=safe_open) as file:
        return parse_templates(file.read(), path, builtin)


def parse_templates(
    text: str, file: str, builtin: Templates | None = None
) -> tuple[Templates, tuple[str, ...]]:
    """Built-in templates with those of a file in their place, and warnings.

    file: its name, for messages. builtin: builtin_templates() if None. Raises TemplateError.
    """
    templates = builtin or builtin_templates()
    warnings: list[str] = []
    lines = iter(enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            shown = f"missing '=' after attribute name: \"{printable(line)}\""
            raise TemplateError(f"{file}, line {number + 1}: {shown}")
        body = [value]
        if value.startswith("<<"):
            body, number = _until(lines, value[2:].strip(), file, number, warnings)
        kind = name.removesuffix("_template")
        if kind not in KINDS or kind == name:
            warnings.append(
                f"{file}, line {number + 1}: unknown template name: {printable(name)}"
                " -- ignoring this template"
            )
            continue
        try:
            section = _section(templates.of(kind), kind, body, file)
        except _BadSection as err:
            warnings.extend(err.lines)
        else:
            templates = replace(templates, **{kind: section})
    return templates, tuple(warnings)


def _until(
    lines: Iterator[tuple[int, str]], marker: str, file: str, number: int, warnings: list[str]
) -> tuple[list[str], int]:
    """The lines before the marker, and the number of the last one read."""
    if not marker:
        raise TemplateError(f"{file}, line {number + 1}: missing end marker after <<")
    body: list[str] = []
    for _, line in lines:
        if line == marker:
            return body, number + len(body) + 1
        body.append(line)
    last = number + len(body)
    warnings.append(f'{file}, line {last + 1}: missing "{marker}" end marker')
    return body, last
