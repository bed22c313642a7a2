"""Calls about datasets: themselves, their files, links, metadata, thumbnails, and their deletion."""
