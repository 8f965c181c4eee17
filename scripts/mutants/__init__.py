"""Mutants: small wrong changes, each of which breaks one law, and the test that must then fail. They show that the
tests hold the laws. Not shipped."""
