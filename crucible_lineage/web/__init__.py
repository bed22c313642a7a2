"""The web pages of `crucible-lineage serve`: what a signed-in reader's key can see, rendered here, without scripts."""
