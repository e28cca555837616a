"""What a person sees: static report, figure, live panel and the bridge to the notebook."""
