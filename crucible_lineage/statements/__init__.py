"""What people and runs say of results: holds, flags, signatures, certificates, promotions and failures."""
