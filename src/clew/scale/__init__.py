"""Scale: what a budget buys, and how to spend it."""
