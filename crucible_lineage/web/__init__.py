"""The web pages of `crucible-lineage serve`: what a signed-in reader's key can see, rendered here, without scripts."""

from crucible_lineage.web.app import with_pages

__all__ = ["with_pages"]
