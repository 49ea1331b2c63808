"""Where and how the network runs."""
