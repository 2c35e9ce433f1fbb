"""Writes man/man5/postconf.5 from the declarations of the parameters and their texts: `make docs`.

Names, types, defaults and programs are those of libmail.config, the words those of
libmail/config/parameters/docs (see tests/parameter_texts.py); what has no effect is marked.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Final

from libmail.config.core import COMPUTED, renamed
from libmail.config.declare import Kind, Parameter
from libmail.config.declared import all_parameters
from libmail.config.families import FAMILIES, Family
from libmail.config.parameters.without_effect import FOR_INSTALLERS, HARMLESS, NEVER
from libmail.lookup import names as engine
from tests.parameter_texts import FOLDER, Block, Text, read_all

PAGE: Final = Path(__file__).resolve().parents[1] / "man/man5/postconf.5"

_TITLE: Final = """\
.\\" Made by `make docs` from libmail/config; do not edit it here.
.TH POSTCONF 5 {date} "mail system" "File Formats"
.ad l
.nh
"""
_SEE_ALSO: Final = """\
.SH SEE ALSO
.BR postconf (1),
.BR postfix (1),
.BR master (5),
.BR access (5),
.BR aliases (5),
.BR canonical (5),
.BR generic (5),
.BR header_checks (5),
.BR relocated (5),
.BR transport (5),
.BR virtual (5)
"""
_BY_MACHINE: Final = {
    "config_directory": "/etc/postfix",
    "mydomain": "$myhostname without its first label",
    "myhostname": "the name of the machine",
    "mynetworks": "see mynetworks_style",
    "process_id": "the process id",
    "process_name": "the name of the program",
    "service_name": "the name of the service",
}
_LONGEST_HEADING: Final = 64
_TIME_UNITS: Final = {1: "seconds", 60: "minutes", 3600: "hours", 86400: "days", 604800: "weeks"}
ALL_RESTRICTIONS: Final = frozenset(
    {*engine.RESTRICTIONS, *engine.WITH_TABLE, *engine.WITH_ARGUMENT}
    | {"check_policy_service", "reject_unverified_recipient", "reject_unverified_sender", "sleep"}
)
_ESCAPES: Final = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
)
_BREAKS: Final = re.compile(r"(?<=[}?:,;])(?=[^\s}?:,;])|(?<=\S{64})(?=\S{8})")
_LITERAL_OR_NAME: Final = re.compile(r"`([^`]+)`|(\b[a-z0-9]+(?:_\w+)+\b)|\b([a-z-]+)(?=\(\d\))")


def escaped(text: str) -> str:
    """Text for troff, in which no character is anything but itself."""
    return text.translate(_ESCAPES)


def bold(text: str) -> str:
    """The text, unbroken, in bold."""
    return f"\\fB{escaped(text)}\\fR".replace(" ", "\\~")


def marked_up(text: str) -> str:
    """A sentence with literals, parameters and programs in bold."""
    parts: list[str] = []
    done = 0
    known = all_parameters().keys() | ALL_RESTRICTIONS
    for match in _LITERAL_OR_NAME.finditer(text):
        literal, name, program = match.groups()
        parts.append(escaped(text[done : match.start()]))
        if literal or program or name in known:
            parts.append(bold(literal or program or name))
        else:
            parts.append(escaped(match[0]))
        done = match.end()
    return "".join([*parts, escaped(text[done:])])


def source_lines(sentence: str) -> list[str]:
    """A sentence as lines of a readable length, none of which troff takes for a request."""
    words = marked_up(sentence)
    wrapped = textwrap.wrap(words, 78, break_long_words=False, break_on_hyphens=False)
    return [f"\\&{line}" if line[:1] in (".", "'") else line for line in wrapped]


def block_lines(block: Block) -> list[str]:
    """A paragraph or an example."""
    if not block.example:
        return [line for sentence in block.sentences() for line in source_lines(sentence)]
    lines = ("    " + escaped(line) for line in block.text.split("\n"))
    return [".sp", ".nf", *lines, ".fi"]


def type_name(kind: Kind) -> str:
    """What a value looks like."""
    match kind.name:
        case "bool":
            return "yes or no"
        case "time":
            unit = _TIME_UNITS[int(float(str(kind.parse("", "1000")))) // 1000]
            return "a time" if unit == "seconds" else f"a time, without unit in {unit}"
        case "raw":
            return "text, evaluated when it is used"
        case _:
            return kind.allowed


def readers(programs: str) -> str:
    """Which programs read a parameter."""
    names = programs.split()
    if names == ["*"]:
        return "most programs"
    return f"{', '.join(names[:-1])}{' and ' if len(names) > 1 else ''}{names[-1]}"


def default_text(name: str, default: str) -> str:
    """The default as `postconf -d` has it, or how it is found out."""
    if name in COMPUTED:
        return escaped(_BY_MACHINE[name])
    return escaped(_BREAKS.sub("\0", default)).replace("\0", "\\:") or "empty"


def effect(name: str) -> str:
    """What is to be said about a parameter that does not do what it should, or ""."""
    if name in NEVER or name in HARMLESS:
        return "Accepted, without effect: this system does not need it."
    if name in FOR_INSTALLERS:
        return "Accepted; no program reads it."
    return ""


def blocks_of(text: Text, texts: dict[str, Text], programs: str) -> list[Block]:
    """The paragraphs of a text, with what it has from another one."""
    if not text.other:
        return list(text.blocks)
    first = texts[text.other].blocks[0].sentences()[0]
    if programs == "lmtp":
        first = re.sub(r"\bsmtp_\w+", lambda match: renamed(match[0], ("smtp_", "lmtp_")), first)
        first = re.sub(r"\bSMTP\b", "LMTP", first)
    if first[1].islower():
        first = first[0].lower() + first[1:]
    return [Block(f"As {text.other}, for {programs}: {first}"), *text.blocks]


def entry(heading: str, name: str, declared: Parameter | Family, text: list[Block]) -> list[str]:
    """One parameter: name and default, what it is for, what it looks like and who reads it."""
    default = default_text(name, declared.default)
    about = f"Type: {escaped(type_name(declared.kind))}; read by {readers(declared.programs)}."
    if len(name) + len(default) <= _LONGEST_HEADING:
        lines = [".TP", f"{heading} (default: {default})"]
    else:
        lines = [".TP", heading]
        about = f"Default: {default}\n.br\n{about}"
    for number, block in enumerate(text):
        lines += [*([".sp"] if number and not block.example else []), *block_lines(block)]
    lines += [".sp", *about.split("\n")]
    remark = effect(name)
    return [*lines, *([".br", *source_lines(remark)] if remark else [])]


def family_entries(texts: dict[str, Text]) -> list[str]:
    """Parameters of services, under the name `transport`."""
    lines: list[str] = []
    for suffix in sorted(FAMILIES):
        family = FAMILIES[suffix]
        heading = f"\\fItransport\\fB{escaped(suffix)}\\fR"
        lines += entry(heading, suffix, family, list(texts[suffix].blocks))
    return lines


def restriction_entries(texts: dict[str, Text]) -> list[str]:
    """smtpd's restrictions: those of today, then older names."""
    lines: list[str] = []
    for name in sorted(texts, key=lambda name: (texts[name].other != "", name)):
        text = texts[name]
        argument = f" \\fI{escaped(text.argument)}\\fR" if text.argument else ""
        older = (Block(f"An older name of {text.other}."),)
        blocks = text.blocks or older
        lines += [".TP", bold(name) + argument]
        lines += [line for block in blocks for line in block_lines(block)]
    return lines


def render() -> str:
    """The page."""
    files = read_all()
    restrictions = files.pop("restrictions")
    families = files.pop("families")
    texts = {name: text for file in files.values() for name, text in file.items()}
    parameters = all_parameters()
    released = parameters["mail_release_date"].default
    lines = [_TITLE.format(date=f"{released[:4]}-{released[4:6]}-{released[6:]}").rstrip()]
    lines += [(FOLDER / "introduction.man").read_text("utf-8").rstrip(), *family_entries(families)]
    lines += [(FOLDER / "restrictions.man").read_text("utf-8").rstrip()]
    lines += restriction_entries(restrictions)
    lines += [".SH PARAMETERS", "In the order of their names."]
    for name in sorted(parameters):
        declared = parameters[name]
        blocks = blocks_of(texts[name], texts, declared.programs)
        lines += entry(bold(name), name, declared, blocks)
    return "\n".join([*lines, _SEE_ALSO.rstrip()]) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), "utf-8")


if __name__ == "__main__":
    main()
