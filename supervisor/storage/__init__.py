"""What is kept: projects, keys, budgets, usage records; a database, and a journal that a kill cannot take anything from."""
