"""Measurements of the mail system, beside a real Postfix where one is installed."""
