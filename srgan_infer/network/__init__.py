"""The generator: described, built, streamed. Knows no images."""
