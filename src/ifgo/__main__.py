"""`python -m ifgo` is `ifgo`."""

from ifgo.cli.main import main

if __name__ == "__main__":
    main()
