"""From the parameters of smtp(8) and lmtp(8) to a ClientContext. Before the jail."""

from __future__ import annotations

from libmail.tls.certificate_files import files_of_settings
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.context import ClientSettings
from libmail.tls.dane import parse_tlsa_digests
from libmail.tls.errors import TlsConfigError
from libmail.tls.params import TlsParams
from libmail.tls.renewal import Certificates
from libmail.tls.settings import OPTIONS, WORKAROUNDS, option_bits, words

__all__ = ["client_settings"]


def client_settings(
    params: ClientTlsParams, common: TlsParams, certificates: Certificates
) -> ClientSettings:
    """What a ClientContext is made of. certificates: reads them. Raises TlsConfigError."""
    try:
        digests = parse_tlsa_digests(common.tls_dane_digests)
    except ValueError as error:
        raise TlsConfigError(str(error)) from None
    pairs = (
        ("RSA", params.smtp_tls_cert_file, params.smtp_tls_key_file),
        ("DSA", params.smtp_tls_dcert_file, params.smtp_tls_dkey_file),
        ("ECDSA", params.smtp_tls_eccert_file, params.smtp_tls_eckey_file),
    )
    groups = words(common.tls_eecdh_auto_curves) + words(common.tls_ffdhe_auto_groups)
    return ClientSettings(
        chains=certificates.chains_of(files_of_settings(params.smtp_tls_chain_files, pairs)),
        authorities=certificates.authorities(
            params.smtp_tls_CAfile,
            params.smtp_tls_CApath,
            defaults=common.tls_append_default_CA,
        ),
        verify_depth=params.smtp_tls_scert_verifydepth,
        groups=tuple(groups),
        disabled=option_bits(
            "tls_disable_workarounds", common.tls_disable_workarounds, WORKAROUNDS
        ),
        options=option_bits("tls_ssl_options", common.tls_ssl_options, OPTIONS),
        raw_keys=params.smtp_tls_enable_rpk,
        dane_digests=digests,
        cached=bool(params.smtp_tls_session_cache_database),
    )
