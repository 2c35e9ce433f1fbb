"""OAuth 2.0 for logging in to others: access tokens instead of passwords.

account     an account: its file below oauth2_directory, and what is known of providers
answers     what token servers say (RFC 6749 §5, RFC 8628 §3), sans I/O
endpoint    asking them
store       where refresh tokens are kept
"""
