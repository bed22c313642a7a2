"""`python -m crucible_lineage`: the same as the command crucible-lineage."""

from crucible_lineage.cli import main

main(prog_name="crucible-lineage")
