"""TLS on one engine for both ends: OpenSSL over memory BIOs, without I/O.

What needs no library (errors, levels, settings, facts, dane, policy, params) can be imported
anywhere. What does (library, and all that imports it) raises LibraryMissing at import where there
is no OpenSSL 3. A process imports it before its jail, and master before it forks: it takes 0.1 s.

A server, in `prepare`, before the jail (files are read; what cannot be used is a TlsConfigError):

    use_config_file(common.tls_config_file, common.tls_config_name)
    level = server_level(config.load(ServerTlsParams))             # libmail.tls.server_level
    settings = server_settings(params, common, level.level, ...)   # reads the files
    context = ServerContext(settings)
    for warning in context.warnings: LOG.warning(warning)

and for each session, after its `220 Ready to start TLS` has been sent, and what came behind
STARTTLS has been dropped (whoever sends something before the handshake wants to have it believed
after it):

    connection = accept(context)
    ...each time octets come:
        connection.receive(octets)
        step = connection.handshake()             # TlsFailed: send output(), log, close
        if step is Step.HELLO:                    # only with settings.names or settings.cached
            connection.answer(chains, session)    # when connection.hello is looked up, even later:
                                                  # ChainsByName.chains, TlsmgrClient.session
            step = connection.handshake()
        send(connection.output())
        if step is Step.DONE:
            LOG.info(connection.agreed.established(connection.trust, "from", peer,
                                                   connection.name_for_log))
    ...and from then on:
        connection.receive(octets); commands = connection.read()
        connection.write(reply); send(connection.output())

A client says with a ClientSpec, which libmail.tls.policy makes, which server is the right one:

    context = ClientContext(client_settings(params, common))       # libmail.tls.client_setup
    anchors = Anchors(params.smtp_tls_trust_anchor_file)
    ...for each server (PolicyError: defer):
    policy = await choose(find_policy, find_site, params, common, nexthop, where)
    if policy.level.by_dane: policy = with_records(policy, records, base_domain)
    spec = policy.spec(where, anchors.of(policy.anchor_files))
    connection = connect(context, spec, session)
    connection.handshake(); send(connection.output())

and goes on in the same way, with "to" for "from". `policy.unmet(connection.trust)` is the error if
that is not the right server. After the handshake `trust` tells how much is
known of the server, and `refused` what is wrong with it; whether that is enough decides the
policy, not the engine. `saved_session()` is to be kept for the next time; with TLS 1.3 it is
there when data was read.

read() gives all that has come as one piece, and raises TlsClosed when the peer has closed in due
form, TlsFailed when it has not (call end_of_input() when the network ends). shutdown() says that
no more will come, close() frees the session at once. Write large data in pieces of some 256 KiB:
records are full then, and output() stays bounded. Read nothing from the network while output() is
not sent.

A line of the log for a TlsFailed is `SSL_accept error from PEER: REASON` (a client's:
`SSL_connect error to PEER: REASON`), then a warning `TLS library problem: LINE` for each of its
problems. Where the level asks for a certain server, `refused.text("server", peer)` is one, too.
Loglevel 2 adds `watch(LOG.info, peer)` before the handshake, and behind it `peer_line()`, for a
client also the line of `refused` in any case; `trace()` is for files in tlstrace
(libmail.tls.loglevel).

No call takes longer than half a millisecond with a key of 2048 bits (docs/architecture.md), so
one step a turn of the loop is enough to stay responsive: never call handshake() in a loop without
input.
"""
