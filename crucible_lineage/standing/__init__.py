"""Where each dataset of a project stands, and the one writer of the slots that decide it."""
