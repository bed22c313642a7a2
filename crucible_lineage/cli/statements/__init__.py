"""Commands by which people state what they know of results: hold, unhold, trust; and what was stated."""
