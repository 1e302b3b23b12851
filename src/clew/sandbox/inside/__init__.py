"""What runs inside a sandbox. Standard library only; nothing here knows a secret, because programs can read it."""
