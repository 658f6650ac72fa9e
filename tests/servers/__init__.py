"""Real servers for the tests: each starts privately, as a process of its own, and is gone afterwards."""
