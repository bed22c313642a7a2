"""A small laboratory of steps; tests import changed copies of it."""
