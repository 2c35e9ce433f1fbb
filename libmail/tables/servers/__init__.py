"""Tables that a server has: ldap, mongodb, memcache, tcp, socketmap, and our own proxymap(8)."""
