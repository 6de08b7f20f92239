"""`python -m gateway.cli`: the same as `parley`."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
