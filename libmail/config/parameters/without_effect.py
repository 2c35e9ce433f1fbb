"""Parameters of Postfix that do nothing here, so that whoever sets one can be told.

A test compares them with what programs read. Loaded only where it is needed: by postfix(1), and for
the manual page.
"""

from __future__ import annotations

__all__ = ["FOR_INSTALLERS", "HARMLESS", "NEVER"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEVER = _words(
    """
    alternate_config_directories backwards_bounce_logfile_compatibility
    berkeley_db_create_buffer_size berkeley_db_read_buffer_size
    connection_cache_protocol_timeout connection_cache_service_name
    connection_cache_status_update_time connection_cache_ttl_limit dns_ncache_ttl_fix_enable
    dont_remove fault_injection_code fork_attempts fork_delay maps_rbl_domains
    non_bdb_custom_mapping non_bdb_migration_allow_root_prefixes
    non_bdb_migration_allow_user_prefixes non_bdb_migration_level non_bdb_migration_log_redirect
    non_bdb_migration_service_name process_id_directory qmgr_fudge_factor qmgr_ipc_timeout
    queue_file_attribute_count_limit sun_mailtool_compatibility tls_daemon_random_bytes
    tls_fast_shutdown_enable tls_random_bytes tls_random_exchange_name tls_random_prng_update_period
    tls_random_reseed_period tls_random_source tlsproxy_client_CAfile tlsproxy_client_CApath
    tlsproxy_client_cert_file tlsproxy_client_chain_files tlsproxy_client_dcert_file
    tlsproxy_client_dkey_file tlsproxy_client_eccert_file tlsproxy_client_eckey_file
    tlsproxy_client_enforce_tls tlsproxy_client_fingerprint_digest tlsproxy_client_key_file
    tlsproxy_client_loglevel tlsproxy_client_per_site tlsproxy_client_policy_maps
    tlsproxy_client_scert_verifydepth tlsproxy_client_security_level tlsproxy_client_use_tls
    trigger_timeout
    """
)
"""Those of what this system does not need."""

FOR_INSTALLERS = _words(
    """
    html_directory mail_release_date mailq_path manpage_directory newaliases_path
    readme_directory sample_directory sendmail_path setgid_group shlib_directory
    """
)
"""Those that only installers and scripts ask for, in Postfix, too."""

HARMLESS = _words(
    """
    debugger_command lmtp_sasl_path postscreen_tls_dh512_param_file smtp_sasl_path
    smtpd_tls_dh512_param_file tlsproxy_tls_dh512_param_file
    """
)
"""Those of which nobody needs to be told: Postfix 3.12 ignores them too, or asks for the debugger
only with an option that master.cf does not have. The main.cf of distributions sets them."""
