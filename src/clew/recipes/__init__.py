"""One runnable file per idea; the loop is visible in each. Whatever is heavy is imported inside functions.

A recipe that is a verb of the command line holds `CONFIG`, a frozen dataclass whose fields are its options;
`EXAMPLES`, lines of help; and `main(config) -> int`, which answers the exit status.
"""
