"""Processes that the tests spawn find the stand-in, too."""

import stand_in  # noqa: F401
