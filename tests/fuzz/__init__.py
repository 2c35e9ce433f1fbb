"""Fuzzing the parsers that meet input: `targets` says what must hold for any octets.

`tests/unit/test_fuzz.py` runs them under hypothesis for a moment; `make fuzz` looks for longer,
with atheris guided by coverage where that is installed.
"""
