"""What a person runs: the verbs of the `unwind` command, the benchmark, the mutants and the demo. Highest floor;
nothing imports it. The engine is started here and never decided here."""
