"""What a step's code is, as a hash: `walk.code_fingerprint`, and the parameters in one spelling."""
