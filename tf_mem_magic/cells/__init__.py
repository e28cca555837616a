"""The cell as text: find where the batch size is set, edit it, keep every other byte. Pure."""
