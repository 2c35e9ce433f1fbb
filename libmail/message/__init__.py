"""Internet message format (RFC 5322) without I/O: headers, addresses, dates, content."""
