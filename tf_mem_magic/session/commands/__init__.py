"""The subcommands of ``%tfmem``."""
