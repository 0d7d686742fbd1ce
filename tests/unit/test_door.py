"""The packages' doors: every name on them opens, and a wrong one says so."""

from types import ModuleType

import pytest

import manager
import replay

DOORS = (manager, replay)


@pytest.mark.parametrize(
    ("door", "name"), [(door, name) for door in DOORS for name in door.__all__]
)
def test_every_public_name_is_there(door: ModuleType, name: str) -> None:
    assert getattr(door, name).__name__ == name
    assert name in vars(door)["_HOMES"]


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_name_is_an_attribute_error(door: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = door.Nothing
