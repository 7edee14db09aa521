"""`python -m privagg`: the same door as the command `privagg`."""

from privagg.cli import main

main()
