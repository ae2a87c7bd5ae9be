from __future__ import annotations

import pytest

from biomistral.miniature.world import World, make_world


@pytest.fixture(scope="session")
def invented() -> World:
    """The invented world, as names and facts."""
    return make_world(7)
