"""Files to rows of pixels and back. Knows no torch."""
