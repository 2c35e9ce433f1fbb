"""A message on its way into smtp-sink(1)."""

from dataclasses import dataclass, field

__all__ = ["Transaction"]


@dataclass(slots=True)
class Transaction:
    """From MAIL on. client: its address; arguments are those of the commands; pieces: the content,
    with lines that end in LF or CRLF, dot-stuffed, after a line end; none unless wanted."""

    client: str
    protocol: str
    helo: str
    mail: str
    recipients: list[str] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)

    def head(self, host: str, ident: str, date: str) -> bytes:
        """What stands in front of the message in its file."""
        shown = f"ipv6:{self.client}" if ":" in self.client else self.client
        lines = [f"X-Client-Addr: {shown}", f"X-Client-Proto: {self.protocol}"]
        if self.helo:
            lines.append(f"X-Helo-Args: {self.helo}")
        lines.append(f"X-Mail-Args: {self.mail}")
        lines += [f"X-Rcpt-Args: {recipient}" for recipient in self.recipients]
        lines.append(f"Received: from {self.helo or f'[{shown}]'} ([{shown}])")
        lines.append(f"\tby {host} (smtp-sink) with {self.protocol} id {ident};")
        lines.append(f"\t{date}")
        return "".join([f"{line}\n" for line in lines]).encode("utf-8", "surrogateescape")

    def content(self) -> bytes:
        """The message, with lines that end in LF."""
        text = b"".join(self.pieces).replace(b"\r\n", b"\n")
        return text.replace(b"\n.", b"\n")[1:]
