"""Steps as processes: started, supervised, ended with all that they started; how they fail."""
