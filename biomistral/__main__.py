"""``python -m biomistral``: the command line, where the ``biomistral`` command is not on the path."""

from biomistral.cli import main

if __name__ == "__main__":
    main()
