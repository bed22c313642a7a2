"""What people and runs say of results: holds, flags, signatures, certificates and failures."""
