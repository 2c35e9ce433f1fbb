"""MTA-STS (RFC 8461): which TLS a domain wants for its mail, as it says over HTTPS.

policy      policies and the records that announce them, sans I/O
answer      what a policy means for the client: an entry of smtp_tls_policy_maps
kept        policies in the cache
fetch       asking a domain for its policy
"""
