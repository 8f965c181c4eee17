"""The version number of this distribution, in its one place: the build reads it from here, and so do the engine and
the CLI.
"""

__version__ = "0.1.0"
