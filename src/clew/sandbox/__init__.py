"""The only place that runs untrusted programs. `programs` runs one, `functions` tests a function, `attacks` tries both.

This file and the folder `inside` are all of clew that is visible inside a sandbox.
"""
