"""The words of clew. Standard library only; every other room imports from here."""
