"""Machines that try to break the promise: what they share, and what each of them does."""
