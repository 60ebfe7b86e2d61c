"""For objectives that remember nothing between two steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Stateless:
    """Nothing to save."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""
