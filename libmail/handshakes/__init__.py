"""Handshakes of services with their clients: smtpd(8) by itself, postscreen(8) through tlsproxy(8).

`server` loads the library of TLS: import it where TLS is wanted, before the jail.
"""
