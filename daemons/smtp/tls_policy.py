"""The TLS policy for each server, from parameters and tables; libmail.tls.policy decides."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final, NamedTuple, Self

from libmail.config import Config
from libmail.log import LOG
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.servers import Server
from libmail.lookup.tlsa import DaneParams, settled
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.errors import TlsConfigError
from libmail.tls.levels import Level
from libmail.tls.params import TlsParams
from libmail.tls.policy import Policy, Where, choose, client_level, relaxed
from libmail.tls.policy_entry import PolicyError

__all__ = ["PLAIN", "ServerTlsPolicy", "TlsKey", "TlsPolicies", "open_policies"]

PLAIN: Final = Policy(level=Level.NONE)
_CONFIGURATION: Final = "client TLS configuration problem"

TlsKey = tuple[Policy, Where | None] | None
"""The part of a session key that depends on TLS: deliveries share sessions of the same policy.

None: without TLS.
"""


class ServerTlsPolicy(NamedTuple):
    """The policy for one server. wanted: the configured level, for the log.

    optional: the sender does not insist on TLS.
    """

    policy: Policy
    where: Where
    wanted: Level
    optional: bool = False

    @property
    def key(self) -> TlsKey:
        """The key of sessions with the server."""
        if self.policy.level is Level.NONE:
            return None
        named = self.policy.level.matches_peer or self.policy.server_name
        return self.policy, self.where if named else None

    async def at(
        self, server: Server | None, port: int, dane: DaneParams, lookups: Lookups
    ) -> Self:
        """The policy for one server, whose TLSA records are looked up if the level is by DANE.

        server: None for a UNIX socket. Raises PolicyError, after its warning is logged; also where
        an MTA-STS policy does not allow the server.
        """
        policy, level = self.policy, self.policy.level
        try:
            if level.by_dane:
                if server is None:
                    how = "is invalid for delivery via a unix-domain socket"
                    why = f'{self.where.nexthop}: the "{level.label}" security level {how}'
                    raise PolicyError(why)
                policy = await settled(policy, server, port, lookups, dane)
        except PolicyError as error:
            if error.warning:
                LOG.warning(error.warning)
            raise
        if server is not None:
            policy.refuse_host(self.where.nexthop, server.host)
        return self if policy is self.policy else self._replace(policy=policy)

    @property
    def without_tls(self) -> "ServerTlsPolicy":
        """The same without TLS, where that is optional."""
        return self._replace(policy=PLAIN)


def _made(policy: Policy, nexthop: str, host: str) -> ServerTlsPolicy:
    return ServerTlsPolicy(policy, Where(nexthop, host), policy.level)


class TlsPolicies:
    """Finds the policies of servers. tables: what it looks into, type:table by title."""

    def __init__(
        self, params: ClientTlsParams, common: TlsParams, prefix: str, *, wrapped: bool
    ) -> None:
        """prefix: "smtp" or "lmtp". wrapped: smtp_tls_wrappermode."""
        self._params = params
        self._common = common
        self._wrapped = wrapped
        self._policies = f"{prefix}_tls_policy_maps"
        self._sites = f"{prefix}_tls_per_site"
        self.tables: Final[Mapping[str, tuple[str, ...]]] = {
            self._policies: params.smtp_tls_policy_maps,
            self._sites: params.smtp_tls_per_site,
        }
        self._fixed = not any(self.tables.values())
        self._usual: Callable[[str, str], ServerTlsPolicy] | None = None

    @property
    def ever(self) -> bool:
        """Whether any destination may have TLS."""
        try:
            return not self._fixed or client_level(self._params) is not Level.NONE
        except TlsConfigError:
            return False

    async def of(
        self, text: str, nexthop: str, host: str, lookups: Lookups, *, optional: bool = False
    ) -> ServerTlsPolicy:
        """The policy for a server.

        text: the destination as in the next hop. nexthop: without brackets and port. host: the name
        of the server, "" for any of them. optional: the sender does not insist on TLS. Raises
        PolicyError, which is logged.
        """
        if self._usual is not None and not optional:
            return self._usual(nexthop, host)
        where = Where(nexthop, host)
        policy = await self._chosen(text, where, lookups)
        if self._fixed and not policy.warning:  # it does not depend on the server
            self._usual = lru_cache(1024)(partial(_made, policy))
        if policy.warning:
            LOG.warning(policy.warning)
        if optional:
            policy = relaxed(policy, self._params, self._common, wrapped=self._wrapped)
        return ServerTlsPolicy(policy, where, policy.level, optional)

    async def _chosen(self, text: str, where: Where, lookups: Lookups) -> Policy:
        find, site = (partial(lookups.find, title) for title in (self._policies, self._sites))
        try:
            return await choose(find, site, self._params, self._common, text, where)
        except PolicyError as error:
            if error.warning:
                LOG.warning(error.warning)
            raise
        except (LookupFailure, TlsConfigError) as error:
            LOG.warning(str(error))
            raise PolicyError(str(error), _CONFIGURATION) from None


def open_policies(config: Config, prefix: str) -> TlsPolicies:
    """Read the parameters. prefix: "smtp" or "lmtp". Raises ConfigError."""
    params = config.load(ClientTlsParams, ("smtp_", "lmtp_") if prefix == "lmtp" else None)
    wrapped = config.bool(f"{prefix}_tls_wrappermode")
    return TlsPolicies(params, config.load(TlsParams), prefix, wrapped=wrapped)
