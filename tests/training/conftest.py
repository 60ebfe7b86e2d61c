"""The tiny random encoder of the encoder tests."""

from __future__ import annotations

from tests.encoder.conftest import folder, tiny  # noqa: F401
