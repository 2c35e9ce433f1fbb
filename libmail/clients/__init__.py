"""Clients of the mail system's own services."""
