"""postfix check: certificates and keys, and what DNS says about them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from libmail.config import Config, ServiceEntry
from libmail.dns.answers import DnsError
from libmail.dns.resolver import Resolver
from libmail.tls.authorities import Authorities
from libmail.tls.certificate import Certificate, one_line
from libmail.tls.certificate_files import CertificateFiles
from libmail.tls.dane import DANE_EE, Tlsa, read_tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.params import ServerTlsParams
from libmail.tls.pem import Chain, chains_in
from libmail.tls.renewal import problem_of
from libmail.tls.server_setup import server_files
from libmail.tls.watched_files import named_certificates

__all__ = ["certificate_problems", "dane_problems"]

_DAY: Final = 86400  # seconds
_SOON: Final = 21 * _DAY
_PATIENCE: Final = 2.0  # seconds for a name server
_KEY: Final = b"PRIVATE KEY-----"


def certificate_problems(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each thing that is wrong with a certificate or key that is configured."""
    trusted = _trusted(config)
    for files in named_certificates(config, entries):
        try:
            contents = files.read()
        except TlsConfigError as error:
            yield error.reason
            continue
        for path, data in dict(zip(files.paths, contents, strict=True)).items():
            if _KEY in data and os.stat(path).st_mode & stat.S_IROTH:
                yield f"{path} has a private key, and everybody may read it"
        problem = problem_of(files, contents)
        if problem:
            yield problem
            continue
        for chain in chains_in(files, contents):
            yield from _of_chain(chain, files, trusted)


def _trusted(config: Config) -> Authorities | None:
    """Those that this system trusts; None where there are none that could be meant."""
    params = config.load(ServerTlsParams)
    try:
        return Authorities(params.smtpd_tls_CAfile, params.smtpd_tls_CApath, defaults=True)
    except TlsConfigError:
        return None


def _of_chain(chain: Chain, files: CertificateFiles, trusted: Authorities | None) -> Iterator[str]:
    left, name = chain.certificate.seconds_left(), files.paths[0]
    if left < min(_SOON, _lifetime(chain.certificate) // 4):
        yield f"the certificate in {name} is valid for {left // _DAY} more days"
    above, last = list(chain.above), chain.certificate
    while above and one_line(last, issuer=True) == one_line(above[0]):
        last = above.pop(0)
    issuer = one_line(last, issuer=True)
    if not trusted or issuer == one_line(last):
        return
    if above or (last is chain.certificate and not trusted.has_issuer_of(last)):
        yield (
            f"the chain in {name} misses the certificate of {issuer}, which is no authority that"
            " this system trusts: who does not have it cannot verify ours"
        )


def _lifetime(certificate: Certificate) -> int:
    return certificate.seconds_left() - certificate.seconds_to_wait()


def dane_problems(config: Config, resolver: Resolver) -> Iterator[str]:
    """A line for each certificate of the server that no TLSA record of its name fits, RFC 7672."""
    all_files = server_files(config.load(ServerTlsParams))
    if not all_files or config.bool("disable_dns_lookups"):
        return
    name = f"_25._tcp.{config.text('myhostname')}"
    records = asyncio.run(_records(resolver, name))
    for files in all_files if records else ():
        try:
            chains = chains_in(files, files.read())
        except TlsConfigError:
            continue  # see above
        for chain in chains:
            if not any(_fits(record, chain) for record in records):
                yield (
                    f"no TLSA record of {name} fits the certificate in {files.paths[0]}:"
                    " whoever uses DANE sends no mail"
                )


def _fits(record: Tlsa, chain: Chain) -> bool:
    meant = (chain.certificate,) if record.usage == DANE_EE else chain.above
    return any(record.fits(one.der(), one.public_key()) for one in meant)


async def _records(resolver: Resolver, name: str) -> list[Tlsa]:
    """Those that count; none where nobody says anything."""
    try:
        async with asyncio.timeout(_PATIENCE):
            answer = await resolver.lookup(name, "TLSA")
    except (DnsError, TimeoutError):
        return []
    found = [read_tlsa(record.value) for record in answer.records]
    return [record for record in found if record is not None and not record.unusable]
