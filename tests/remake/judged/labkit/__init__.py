"""Helpers of a laboratory, which its steps import."""
