"""SASL (RFC 4422): who may submit mail, and logging in to other servers.

mechanism   the properties of mechanisms, and smtpd_sasl_security_options
server      the interface of authentication servers for smtpd(8)
dovecot     Dovecot's authentication protocol, sans I/O (its client: libmail.clients.dovecot)
cyrus       the Cyrus SASL library (its client: libmail.clients.cyrus)
table       an authentication server over a lookup table; passwords: the hashes in it
client      logging in to servers: the client's end of mechanisms
scram       SCRAM (RFC 5802), both ends; prepare: SASLprep (RFC 4013)
digest      DIGEST-MD5 (RFC 2831), the client's end
"""
