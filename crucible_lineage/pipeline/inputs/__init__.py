"""The datasets that steps are made from: looked up, or registered from files; grouped, paired, and what they tell."""
