"""What a pipeline declaration may say, as typed values: steps, inputs, what is read from names and by Crucible."""
