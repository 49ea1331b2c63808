"""Measurements: every contender in one run, ratios with their spread."""
