"""`python -m unwind_saga`: the same as the `unwind` command, for machines where that is not on PATH."""

from unwind_saga import main

main()
