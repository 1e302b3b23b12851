"""Rewards and values: learned process models, values from a solver, values from two policies.

Scorers that need no weights of their own are in `clew.search.guides`.
"""
