"""postfix tls: turn TLS on, and make and deploy keys and certificates of the SMTP server.

What changes main.cf does so by postconf(1). A configuration that somebody has made is left alone:
typical settings are named instead.
"""

import getopt
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from commands.postfix.keypairs import ALGORITHMS, Algorithm, KeyPair, OpenSsl, algorithm_named
from commands.postfix.report import error, info, warning
from libmail.config import Config
from libmail.config.programs import program_directory
from libmail.log import Fatal

__all__ = ["manage_tls"]

_CLIENT: Final = ("smtp_tls_", "smtp_use_tls", "smtp_enforce_tls", "smtp_starttls_")
_SERVER: Final = ("smtpd_tls_", "smtpd_use_tls", "smtpd_enforce_tls", "smtpd_starttls_")
_RELOAD: Final = (
    "Run the command:",
    "  # postfix reload",
    "if you want the new settings to take effect immediately.",
)
_ABOUT_RECORDS: Final = (
    "If you publish DANE TLSA records, see:",
    "  https://tools.ietf.org/html/rfc7671#section-8",
    "  https://tools.ietf.org/html/rfc7671#section-5.1",
    "  https://tools.ietf.org/html/rfc7671#section-5.2",
)
# Nothing that a scanner would call weak. Who cannot do so much sends in the clear, as before.
_STRONG: Final = (
    ("smtpd_tls_protocols", ">=TLSv1.2"),
    ("smtpd_tls_mandatory_protocols", ">=TLSv1.2"),
    ("smtpd_tls_exclude_ciphers", "aNULL"),
    ("tls_preempt_cipherlist", "yes"),
)
_RSA: Final = ALGORITHMS[0]


class _Words(NamedTuple):
    """What stands behind a subcommand: options by letter, and the rest."""

    options: dict[str, str]
    rest: Sequence[str]


class _TlsCommand:
    """The subcommands. All return an exit status, and raise Fatal, ConfigError."""

    def __init__(self, config: Config) -> None:
        self._config = config

    # main.cf

    def _has_defaults(self, prefixes: tuple[str, ...]) -> bool:
        config = self._config
        ours = [name for name in config.names() if name.startswith(prefixes)]
        return all(config.text(n) == config.expand(config.default(n) or "") for n in ours)

    def _edit(self, settings: Iterable[tuple[str, str]]) -> None:
        program = program_directory(self._config, "command_directory") + "/postconf"
        words = [f"{name}={value}" for name, value in settings]
        command = [program, "-c", self._config.directory, "-e", *words]
        if subprocess.run(command, check=False).returncode != 0:
            raise Fatal("main.cf was not changed")

    def all_default_client(self, _: _Words) -> int:
        """Whether nobody has configured TLS of the client."""
        return int(not self._has_defaults(_CLIENT))

    def all_default_server(self, _: _Words) -> int:
        """Whether nobody has configured TLS of the server."""
        return int(not self._has_defaults(_SERVER))

    def enable_client(self, _: _Words) -> int:
        """Opportunistic TLS in smtp(8)."""
        cache = f"{self._config.text('default_cache_db_type')}:${{data_directory}}/smtp_scache"
        settings = [
            ("smtp_tls_security_level", "may"),
            ("smtp_tls_loglevel", "1"),
            ("smtp_tls_session_cache_database", cache),
        ]
        if not self._has_defaults(_CLIENT):
            _say("*** Non-default SMTP client TLS settings detected, no changes made.",
                 "For opportunistic TLS in the Postfix SMTP client, the below settings",
                 "are typical:", *_listed(settings))  # fmt: skip
            return 0
        self._edit(settings)
        _say("Enabled opportunistic TLS in the Postfix SMTP client.", *_RELOAD)
        return 0

    def enable_server(self, words: _Words) -> int:
        """Opportunistic TLS in smtpd(8), with a certificate of its own."""
        settings = [("smtpd_tls_security_level", "may"), ("smtpd_tls_loglevel", "1")]
        if not self._has_defaults(_SERVER):
            _say("*** Non-default SMTP server TLS settings detected, no changes made.",
                 "For opportunistic TLS in the Postfix SMTP server, the below settings",
                 "are typical:", *_listed(settings),
                 'You can use "postfix tls new-server-cert" to create a new certificate.',
                 'Or, "postfix tls new-server-key" to also force a new private key.',
                 *_ABOUT_RECORDS)  # fmt: skip
            return 0
        algorithm, pair = self._made(words, keep=False)
        self._edit(
            [
                *settings,
                *_STRONG,
                ("smtpd_tls_received_header", "yes"),
                (algorithm.certificate, pair.certificate),
                (algorithm.key, pair.key),
            ]
        )
        _say("Enabled opportunistic TLS in the Postfix SMTP server",
             "New TLS private key and certificate deployed.", *_RELOAD,
             "To generate a CSR run:",
             f"  # postfix tls output-server-csr -k {pair.key} [<hostname> ...]",
             f"Save the signed certificate chain in {pair.certificate}.",
             "To generate TLSA records run:",
             "  # postfix tls output-server-tlsa [-h <hostname>] ",
             "(If you have DANE TLSA RRs, update them as soon as possible to match",
             "the newly deployed keys).")  # fmt: skip
        return 0

    # keys and certificates

    def _made(self, words: _Words, *, keep: bool) -> tuple[Algorithm, KeyPair]:
        """keep: the key that is in use, if there is one."""
        name = words.options.get("-a", _RSA.name)
        algorithm = algorithm_named(name)
        if algorithm is None:
            raise Fatal(f"Unsupported public key algorithm: {name}")
        size = words.options.get("-b", algorithm.size)
        names = words.rest or (self._config.text("myhostname"),)
        openssl = OpenSsl(self._config)
        old = self._configured(algorithm) if keep else ""
        return algorithm, openssl.make_pair(algorithm, size, names, old and openssl.path(old))

    def _configured(self, algorithm: Algorithm) -> str:
        """The file of a key of the server, "" for none."""
        name = self._config.text(algorithm.key)
        return "" if name == "none" else name

    def new_server_key(self, words: _Words) -> int:
        """A key and its certificate."""
        _, pair = self._made(words, keep=False)
        _tell_of(pair)
        _say("(deploy after updating the DNS and waiting for stale RRs to expire).")
        return 0

    def new_server_cert(self, words: _Words) -> int:
        """A certificate for the key that is in use."""
        _, pair = self._made(words, keep=True)
        _tell_of(pair)
        return 0

    def deploy_server_cert(self, words: _Words) -> int:
        """Use a key and its certificate from now on."""
        certificate, key = words.rest
        openssl = OpenSsl(self._config)
        pair = KeyPair(openssl.path(certificate), openssl.path(key))
        public = openssl.public_key(pair.key)
        if public is None:
            raise Fatal(f"no private key found in file: {pair.key}")
        certified = openssl.certified_key(pair.certificate)
        if certified is None:
            raise Fatal(f"no certificate found in file: {pair.certificate}")
        if certified != public:
            raise Fatal(f"The certificate in {pair.certificate} is not of the key in {pair.key}")
        if self._config.text("smtpd_tls_chain_files"):
            warning("smtpd_tls_chain_files is set: what it names is used instead")
        algorithm = openssl.algorithm(public)
        self._edit([(algorithm.certificate, pair.certificate), (algorithm.key, pair.key)])
        _say("New TLS private key and certificate deployed.", *_RELOAD)
        return 0

    # what others need

    def _key_file(self, openssl: OpenSsl, name: str) -> str:
        """Of a name of a file or algorithm; "" for none."""
        algorithm = algorithm_named(name)
        name = name if algorithm is None else self._configured(algorithm)
        return name and openssl.path(name)

    def output_server_csr(self, words: _Words) -> int:
        """A request to an authority, for a key."""
        openssl = OpenSsl(self._config)
        path = self._key_file(openssl, words.options.get("-k", _RSA.name))
        if not path or openssl.public_key(path) is None:
            raise Fatal("No usable keyfile specified or configured")
        names = words.rest or (self._config.text("myhostname"),)
        print(openssl.request(path, names), end="")
        return 0

    def output_server_tlsa(self, words: _Words) -> int:
        """Records for DNS."""
        openssl = OpenSsl(self._config)
        host = words.options.get("-h") or self._config.text("myhostname")
        for name in words.rest or [one.name for one in ALGORITHMS]:
            if path := self._key_file(openssl, name):
                print(f"; {path}\n_25._tcp.{host}. IN TLSA 3 1 1 {openssl.digest(path)}")
        return 0


def _say(*lines: str) -> None:
    for line in lines:
        info(line)


def _listed(settings: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name} = {value}" for name, value in settings]


def _tell_of(pair: KeyPair) -> None:
    _say("New private key and self-signed certificate created. To deploy run:",
         f"  # postfix tls deploy-server-cert {pair.certificate} {pair.key}",
         "To generate a CSR run:",
         f"  # postfix tls output-server-csr -k {pair.key} [<hostname> ...]",
         f"Save the signed certificate chain in {pair.certificate}, and deploy as above.",
         "To generate TLSA records run:",
         f"  # postfix tls output-server-tlsa [-h <hostname>] {pair.key}")  # fmt: skip


class _Row(NamedTuple):
    """A subcommand. letters: of its options. least, most: words behind these."""

    run: Callable[[_TlsCommand, _Words], int]
    usage: str = ""
    letters: str = ""
    least: int = 0
    most: int = 0


_MANY: Final = 1000
_OF_KEYS: Final = "[-a algorithm] [-b bits ] [hostname ...]"
_ROWS: Final = {
    "enable-client": _Row(_TlsCommand.enable_client, "[-r randsource]", "r:"),
    "enable-server": _Row(
        _TlsCommand.enable_server, f"[-r randsource] {_OF_KEYS}", "r:a:b:", 0, _MANY
    ),
    "new-server-key": _Row(_TlsCommand.new_server_key, _OF_KEYS, "a:b:", 0, _MANY),
    "new-server-cert": _Row(_TlsCommand.new_server_cert, _OF_KEYS, "a:b:", 0, _MANY),
    "deploy-server-cert": _Row(_TlsCommand.deploy_server_cert, "certfile keyfile", "", 2, 2),
    "output-server-csr": _Row(
        _TlsCommand.output_server_csr, "[-k keyfile] [hostname ...]", "k:", 0, _MANY
    ),
    "output-server-tlsa": _Row(
        _TlsCommand.output_server_tlsa, "[-h hostname] [keyfile ...]", "h:", 0, _MANY
    ),
    "all-default-client": _Row(_TlsCommand.all_default_client),
    "all-default-server": _Row(_TlsCommand.all_default_server),
}


def manage_tls(config: Config, words: Sequence[str]) -> int:
    """Run a subcommand; returns the exit status. Raises Fatal, ConfigError."""
    name, *arguments = words or [""]
    row = _ROWS.get(name)
    if row is None:
        first, *others = _ROWS
        error(f"unknown tls command: '{name}'")
        raise Fatal(f"usage: postfix tls {first} (or {', '.join(others)})")
    try:
        pairs, rest = getopt.getopt(arguments, row.letters)
        if not row.least <= len(rest) <= row.most:
            raise getopt.GetoptError("wrong number of words")
    except getopt.GetoptError:
        raise Fatal(f"usage: postfix tls {name} {row.usage}".rstrip()) from None
    if any(letter == "-r" for letter, _ in pairs):
        warning("-r is ignored: random numbers are those of the kernel")
    return row.run(_TlsCommand(config), _Words(dict(pairs), rest))
