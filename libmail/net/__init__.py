"""Streams: connections to clients, servers and our own programs, in the event loop."""
