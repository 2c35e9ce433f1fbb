"""Certificates that all tests of this folder share."""

from __future__ import annotations

import pytest

from tests.certificates import Authority


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))
