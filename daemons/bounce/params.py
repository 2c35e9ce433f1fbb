"""What bounce(8) reads before the jail."""

from dataclasses import dataclass

from libmail.clients.flush import FlushClientParams, flush_domains
from libmail.config import Config, ConfigError
from libmail.dsn.templates import (
    KINDS,
    TemplateError,
    Templates,
    builtin_templates,
    expanded,
    read_templates,
)
from libmail.log import LOG
from libmail.service.skeleton import Startup
from libmail.tables.match import DomainList

__all__ = ["BounceParams", "Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class BounceParams:
    """Parameters of bounce(8)."""

    bounce_notice_recipient: str
    bounce_size_limit: int
    bounce_template_file: str
    cleanup_service_name: str
    delay_notice_recipient: str
    disable_verp_bounces: bool
    double_bounce_sender: str
    enable_threaded_bounces: bool
    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    header_from_format: str
    internal_mail_filter_classes: tuple[str, ...]
    ipc_timeout: float
    mail_name: str
    maximal_queue_lifetime: float
    myhostname: str
    myorigin: str
    notify_classes: tuple[str, ...]
    requiretls_redact_dsn: bool
    smtputf8_enable: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """double_notice_recipient: 2bounce_notice_recipient. Texts of the templates are expanded."""

    params: BounceParams
    double_notice_recipient: str
    templates: Templates
    texts: dict[str, str]
    flush_params: FlushClientParams
    flush_domains: DomainList


def _usable_templates(config: Config, params: BounceParams) -> tuple[Templates, dict[str, str]]:
    """A file that cannot be used is no reason to lose a report: the built-in texts serve."""
    path, name_format = params.bounce_template_file, params.header_from_format
    try:
        templates, warnings = read_templates(path, name_format)
        for warning in warnings:
            LOG.warning(warning)
        return templates, _texts(config, templates)
    except OSError as err:
        LOG.warning(f"open {path}: {err.strerror} -- using default templates")
    except (TemplateError, ConfigError) as err:
        LOG.warning(f"{err} -- using default templates")
    templates = builtin_templates(name_format)
    return templates, _texts(config, templates)


def _texts(config: Config, templates: Templates) -> dict[str, str]:
    # Odd units of time are no matter of the log: they may be in a text that is never used.
    return {kind: expanded(config, kind, templates.of(kind)).text for kind in KINDS}


def prepare(startup: Startup) -> Prepared:
    """Read parameters and templates."""
    config = startup.config
    params = config.load(BounceParams)
    templates, texts = _usable_templates(config, params)
    flush_params = config.load(FlushClientParams)
    return Prepared(
        params,
        config.text("2bounce_notice_recipient"),
        templates,
        texts,
        flush_params,
        flush_domains(flush_params),
    )
