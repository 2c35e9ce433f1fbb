"""Transport layer security: what says that mail must not travel in the clear."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("lmtp_enforce_tls", BOOL, "no", "lmtp",
              "As smtp_enforce_tls, for LMTP."),
    Parameter("lmtp_tls_policy_maps", LIST, "", "lmtp",
              "As smtp_tls_policy_maps, for LMTP."),
    Parameter("lmtp_tls_security_level", STR(), "", "lmtp",
              "As smtp_tls_security_level, for LMTP."),
    Parameter("smtp_enforce_tls", BOOL, "no", "smtp",
              "Older form of smtp_tls_security_level = encrypt."),
    Parameter("smtp_tls_policy_maps", LIST, "", "smtp",
              "Tables with the security level by next hop."),
    Parameter("smtp_tls_security_level", STR(),
              "${{$compatibility_level} <level {3.11} ? {} : {may}}", "smtp",
              "Whether sessions are encrypted: none, may, encrypt, dane, dane-only, fingerprint, "
              "verify, secure."),
    Parameter("smtpd_enforce_tls", BOOL, "no", "smtpd",
              "Older form of smtpd_tls_security_level = encrypt."),
    Parameter("smtpd_tls_security_level", STR(), "", "smtpd",
              "Whether clients may (may) or must (encrypt) use TLS; none: neither."),
    Parameter("smtpd_tls_wrappermode", BOOL, "no", "smtpd",
              "Sessions begin with TLS, without STARTTLS."),
)  # fmt: skip
