"""The Milter protocol as the mail system speaks it, without sockets.

A Milter is a program that sees a message while it is received and may refuse or change it. One
connection (`conversation.Conversation`) serves one SMTP session and any number of messages in it:
smtpd(8) reports connect, HELO, MAIL, RCPT and DATA as they happen, then cleanup(8) goes on with
header, body and the end of the message, where the Milter may ask for changes. Between two events
nothing is under way on the connection, so it may change hands there; `Conversation.snapshot` is
what the other process must know.

    protocol      packets: names of commands and answers, framing, parsing
    conversation  one connection: what the Milter wants to see, what was said, what it decides
    settings      smtpd_milters and its like: endpoints with settings of their own
    macros        the milter_*_macros lists, and macros that a Milter asked for itself

There is no RFC; the constants are those of Sendmail's public header file mfdef.h.
"""
