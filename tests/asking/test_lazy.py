"""Names of the room are fetched when first used, and hide none of its modules."""

from __future__ import annotations

import pkgutil

from vlm_pruner import asking


def test_every_name_is_there_and_no_module_is_called_like_one() -> None:
    assert set(asking.__all__) == set(asking._HOME_OF)
    assert all(getattr(asking, name) is not None for name in asking.__all__)
    assert not {module.name for module in pkgutil.iter_modules(asking.__path__)} & set(asking.__all__)
