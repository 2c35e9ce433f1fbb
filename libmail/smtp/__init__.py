"""SMTP without input and output: addresses, replies, and the cores of server and client."""
