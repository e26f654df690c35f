"""`python -m jobwatt`."""

from jobwatt.cli import main

if __name__ == "__main__":
    main()
