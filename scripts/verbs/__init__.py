"""The verbs of `unwind`, one file per noun; each function reads its arguments, asks the engine, and returns an
`Answer`. Imports at the top stay light, so that `unwind --help` answers at once."""
