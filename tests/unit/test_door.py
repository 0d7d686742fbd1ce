"""The package's door: every name on it opens, and a wrong one says so."""

import pytest

import manager


@pytest.mark.parametrize("name", manager.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(manager, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = manager.Nothing
