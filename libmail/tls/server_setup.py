"""From the parameters of smtpd(8) to a ServerContext: chains, ciphers. Before the jail."""

from __future__ import annotations

from libmail.tls.certificate_files import CertificateFiles, files_of_settings
from libmail.tls.context import Ask, ServerSettings
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams, TlsParams
from libmail.tls.renewal import Certificates
from libmail.tls.settings import (
    OPTIONS,
    WORKAROUNDS,
    cipher_list,
    grade_groups,
    option_bits,
    parse_protocols,
    session_seconds,
    words,
)
from libmail.tls.tickets import TicketKeys

__all__ = ["server_files", "server_settings"]


def server_settings(
    params: ServerTlsParams,
    common: TlsParams,
    level: Level,
    *,
    session_context: bytes,
    tickets: TicketKeys | None,
    certificates: Certificates,
) -> ServerSettings:
    """What a ServerContext is made of. Raises TlsConfigError.

    session_context: sessions are resumed by services of the same one only. certificates: reads
    them.
    """
    ask = _ask(params, level)
    mandatory = level.enforced
    timeout = session_seconds(params.smtpd_tls_session_cache_timeout)
    protocols = params.smtpd_tls_mandatory_protocols if mandatory else params.smtpd_tls_protocols
    return ServerSettings(
        chains=certificates.chains_of(server_files(params)),
        authorities=certificates.authorities(
            params.smtpd_tls_CAfile,
            params.smtpd_tls_CApath,
            defaults=common.tls_append_default_CA,
        ),
        verify_depth=params.smtpd_tls_ccert_verifydepth,
        groups=tuple(_groups(params, common)),
        disabled=option_bits(
            "tls_disable_workarounds", common.tls_disable_workarounds, WORKAROUNDS
        ),
        options=option_bits("tls_ssl_options", common.tls_ssl_options, OPTIONS),
        raw_keys=params.smtpd_tls_enable_rpk,
        ciphers=_ciphers(params, common, ask, mandatory),
        protocols=parse_protocols(protocols),
        ask=ask,
        preempt=common.tls_preempt_cipherlist,
        dh_file=params.smtpd_tls_dh1024_param_file,
        session_context=session_context,
        session_timeout=int(timeout) or 1,
        session_ids=params.smtpd_tls_always_issue_session_ids,
        cached=bool(params.smtpd_tls_session_cache_database) and timeout > 0,
        names=bool(common.tls_server_sni_maps),
        tickets=tickets if timeout > 0 else None,
        ticket_cipher=common.tls_session_ticket_cipher,
        accept_server_purpose=common.tls_trust_server_ccerts,
    )


def server_files(params: ServerTlsParams) -> tuple[CertificateFiles, ...]:
    """The files of the server's chains; () for none."""
    return files_of_settings(
        params.smtpd_tls_chain_files,
        (
            ("RSA", params.smtpd_tls_cert_file, params.smtpd_tls_key_file),
            ("DSA", params.smtpd_tls_dcert_file, params.smtpd_tls_dkey_file),
            ("ECDSA", params.smtpd_tls_eccert_file, params.smtpd_tls_eckey_file),
        ),
    )


def _ask(params: ServerTlsParams, level: Level) -> Ask:
    """Certificates are a must only where TLS is one."""
    if params.smtpd_tls_req_ccert and level.enforced:
        return Ask.REQUIRE
    return Ask.YES if params.smtpd_tls_ask_ccert else Ask.NO


def _groups(params: ServerTlsParams, common: TlsParams) -> list[str]:
    curves = grade_groups(
        params.smtpd_tls_eecdh_grade,
        common.tls_eecdh_auto_curves,
        common.tls_eecdh_strong_curve,
        common.tls_eecdh_ultra_curve,
    )
    return curves + words(common.tls_ffdhe_auto_groups)


def _ciphers(params: ServerTlsParams, common: TlsParams, ask: Ask, mandatory: bool) -> str:
    grade = params.smtpd_tls_mandatory_ciphers if mandatory else params.smtpd_tls_ciphers
    exclusions = [params.smtpd_tls_exclude_ciphers]
    if mandatory:
        exclusions.append(params.smtpd_tls_mandatory_exclude_ciphers)
    if ask is not Ask.NO:
        exclusions.append("aNULL")  # which has no certificates at all
    return cipher_list(grade, exclusions, common.cipher_lists)
