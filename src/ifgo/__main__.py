"""`python -m ifgo` is `ifgo`."""

from ifgo.cli.main import main

main()
