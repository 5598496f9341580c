"""The jobs users come for, each one function that wires the stages together; the command line calls only these."""
