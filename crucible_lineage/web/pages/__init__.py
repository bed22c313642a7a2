"""The pages themselves, by subject: each is a function from who reads to an answer."""
