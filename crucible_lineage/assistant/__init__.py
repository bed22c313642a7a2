"""Questions of assistants, over the Model Context Protocol: the same functions as the commands, read-only, bounded."""
