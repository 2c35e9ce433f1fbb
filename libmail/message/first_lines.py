"""What the first lines of content may not do to the header that is put in front of them.

A line "From sender date", left by a program that reads mail from an mbox file, would end the
header; it becomes X-Mailbox-Line. (">From", of a message within such a file, does so in QMQP, and
not in SMTP.) White space would continue our Received header; it begins the body instead.
"""

import re
from typing import Final

__all__ = ["mend_first_lines"]

_SUSPECT: Final = b"F \t>"
_MBOX_LINES: Final = re.compile(rb"(?:From [^\n]*\n)*")
_QUOTED_TOO: Final = re.compile(rb"(?:>*From [^\n]*\n)*")
_LINE: Final = re.compile(rb"^(?=.)", re.M)
_UNDECIDED: Final = re.compile(rb"(?:F(?:r(?:o(?:m(?: [^\n]*)?)?)?)?)?\Z")
_LIMIT: Final = 4096  # octets to wait for


def mend_first_lines(content: bytes, *, complete: bool, quoted: bool = False) -> bytes | None:
    """The first piece of content, with what is wrong at its start mended.

    None: more has to be known of it; complete: there is no more. quoted: also ">From" is wrong.
    """
    if content and content[0] not in _SUSPECT:
        return content
    match = _QUOTED_TOO.match(content) if quoted else _MBOX_LINES.match(content)
    end = match.end() if match is not None else 0
    if not complete and len(content) < _LIMIT and _UNDECIDED.match(content, end):
        return None
    start = _LINE.sub(b"X-Mailbox-Line: ", content[:end]) if end else b""
    rest = content[end:]
    return start + (b"\r\n" if rest.startswith((b" ", b"\t")) else b"") + rest
