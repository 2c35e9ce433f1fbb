"""Build script: which folders are packages; everything else is in pyproject.toml.

A complete system (commands, daemons, configuration, manual pages) is installed by
`make install PREFIX=DIR`; this file is for `pip install` of the library and for tools
that read the metadata.
"""

from setuptools import find_packages, setup

TOP = ("libmail", "daemons", "commands", "master")

setup(packages=find_packages(include=[pattern for name in TOP for pattern in (name, f"{name}.*")]))
