"""A run recorded: samples, captured messages and dumps, the recording file."""
