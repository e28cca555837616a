"""What is missing stops a test aloud: skipped at work, failed in CI."""

import pytest

from tests.needs import lacking, need


def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="must be tested here, but no_such_module is not installed"):
        need("json", "no_such_module")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no compiler"):
        lacking("no compiler")
    need("json")
