"""What running cells again would do: effects, what a failed run changed, ways to go on, replays. Pure."""
