"""`python -m keysync`."""

from keysync.cli.main import main

if __name__ == "__main__":
    main()
