"""The words that every floor shares. Standard library only, no input or output."""
