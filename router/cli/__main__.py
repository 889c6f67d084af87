"""``python -m edgewise.router.cli``: the command, for whoever starts it as a process of its own."""

from .main import main

main()
