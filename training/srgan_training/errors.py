"""The one error of the training commands."""

from __future__ import annotations


class TrainingError(Exception):
    """Something cannot go on; the message says what to do."""
