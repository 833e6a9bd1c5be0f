"""Lets `python -m bucketfront.cli` run the command line."""

from bucketfront.cli import main

main(prog_name="bucketfront")
