"""clew: initialise, reward, search, learn, search again; and measure how all of it scales."""

__version__ = "0.1.0"
