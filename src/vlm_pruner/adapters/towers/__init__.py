"""Vision towers that can be run on some of their patches alone: what goes in is cut, what comes out has its old shape.

Positions are given to every patch before anything is cut, and no row knows its place behind that. So the rows that come
out are those of the whole tower in which the other patches are hidden from every attention. Rows that were cut come
out as zeros, so that whatever lies behind the tower (splits by picture, shuffles, pooling, placeholders) stays stock.
Nothing is chosen here. A token may be made of several patches: they go or stay together.
"""

from __future__ import annotations

from vlm_pruner.adapters.towers.base import Tower, TowerCall
from vlm_pruner.adapters.towers.packed import Packed
from vlm_pruner.adapters.towers.squares import Squares, SquaresCall

__all__ = ["Packed", "Squares", "SquaresCall", "Tower", "TowerCall"]
