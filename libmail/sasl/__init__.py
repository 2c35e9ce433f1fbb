"""SASL (RFC 4422): who may submit mail, and logging in to other servers.

mechanism   what a mechanism is good for, and smtpd_sasl_security_options
server      what smtpd(8) needs of an authentication server; each kind implements it
dovecot     Dovecot's authentication protocol, without sockets
"""
